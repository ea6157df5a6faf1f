"""Scenes of the drawn world: what stands where, in which colours, on which background, by day or
night.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from customize.embedded.world.colors import RGB, contrasting, mixed
from customize.embedded.world.things import Pen, ThingName, drawer_of

SIZE = 64
"""Pixels of a side where nothing else is asked for: what the base that ships was fitted on."""
OVERSAMPLING = 3

Slot = Literal["left", "middle", "right"]
Texture = Literal["plain", "striped", "dotted", "checkered"]
TEXTURES: tuple[Texture, ...] = ("plain", "striped", "dotted", "checkered")
CENTERS: dict[Slot, float] = {"left": 0.27, "middle": 0.5, "right": 0.73}


@dataclass(frozen=True)
class Thing:
    """A thing in a slot. `color` is its name in captions, None where the colour has no name."""

    name: ThingName
    color: str | None
    rgb: RGB
    slot: Slot
    dx: float = 0.0
    size: float = 0.42
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything a picture of the drawn world shows; things from left to right."""

    background: str | None
    rgb: RGB
    texture: Texture
    things: tuple[Thing, ...]
    night: bool = False


def draw_scene(scene: Scene, size: int = SIZE) -> np.ndarray:
    """Render a scene to uint8 (size, size, 3), antialiased by drawing three times larger."""
    large = size * OVERSAMPLING
    image = Image.new("RGB", (large, large), scene.rgb)
    canvas = ImageDraw.Draw(image)
    _draw_texture(canvas, scene, large)
    ground = mixed(scene.rgb, (60, 50, 40), 0.45)
    canvas.rectangle((0, large * 0.78, large, large), fill=ground)
    for thing in scene.things:
        x = (CENTERS[thing.slot] + thing.dx) * large
        pen = Pen(canvas, x, large * 0.88, thing.size * large, thing.mirrored)
        drawer_of(thing.name)(pen, thing.rgb)
    pixels = np.asarray(image.reduce(OVERSAMPLING))
    return at_night(pixels) if scene.night else pixels


def _draw_texture(canvas: ImageDraw.ImageDraw, scene: Scene, size: int) -> None:
    second, step = contrasting(scene.rgb), size // 8
    match scene.texture:
        case "plain":
            return
        case "striped":
            for x in range(0, size, 2 * step):
                canvas.rectangle((x, 0, x + step - 1, size), fill=second)
        case "dotted":
            for x in range(step, size, 2 * step):
                for y in range(step, size, 2 * step):
                    radius = step * 0.55
                    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=second)
        case "checkered":
            for x in range(0, size, 2 * step):
                for y in range(0, size, step):
                    shift = step if (y // step) % 2 else 0
                    canvas.rectangle(
                        (x + shift, y, x + shift + step - 1, y + step - 1), fill=second
                    )


def at_night(pixels_HWC: np.ndarray) -> np.ndarray:
    """Darken a square picture to a blue night with a moon in the corner."""
    dark = pixels_HWC * np.array([0.38, 0.42, 0.62]) + np.array([0, 2, 18])
    large = len(pixels_HWC) * OVERSAMPLING
    image = Image.fromarray(dark.clip(0, 255).astype(np.uint8)).resize((large, large))
    moon = [round(share * large / 192) for share in (150, 9, 180, 39)]
    ImageDraw.Draw(image).ellipse(moon, fill=(250, 245, 200))
    return np.asarray(image.reduce(OVERSAMPLING))


def caption_of(scene: Scene) -> str:
    """Describe a scene in one sentence."""
    things = " and ".join(with_article(thing.color, thing.name) for thing in scene.things)
    texture = scene.texture if scene.texture != "plain" else None
    ground = with_article(texture, scene.background, "background")
    return f"{things or 'nothing'} on {ground}" + (" at night" if scene.night else "")


def with_article(*words: str | None) -> str:
    """Join words behind `a` or `an`, leaving out the unnamed."""
    phrase = " ".join(word for word in words if word)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
