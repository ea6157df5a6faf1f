"""Scenes of the drawn world: what stands where, in which colours, on which background, by day or
night.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from customize.embedded.world.colors import PALETTE, RGB, any_color, contrasting, jittered, mixed
from customize.embedded.world.things import THING_NAMES, Pen, ThingName, drawer_of

SIZE = 64
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
    """Everything a picture of the drawn world shows."""

    background: str | None
    rgb: RGB
    texture: Texture
    things: tuple[Thing, ...]
    night: bool = False


def is_held_out(*words: str | None) -> bool:
    """Tell whether a combination of words (thing and colour, wording and colour) is kept for
    testing.

    About one combination in ten, by a hash, so that the split never depends on the order of
    drawing.
    """
    digest = hashlib.sha256(" ".join(str(word) for word in words).encode()).digest()
    return digest[0] < 26


def draw_scene(scene: Scene) -> np.ndarray:
    """Render a scene to uint8 (64, 64, 3), antialiased by drawing three times larger."""
    size = SIZE * OVERSAMPLING
    image = Image.new("RGB", (size, size), scene.rgb)
    canvas = ImageDraw.Draw(image)
    _draw_texture(canvas, scene, size)
    ground = mixed(scene.rgb, (60, 50, 40), 0.45)
    canvas.rectangle((0, size * 0.78, size, size), fill=ground)
    for thing in scene.things:
        x = (CENTERS[thing.slot] + thing.dx) * size
        pen = Pen(canvas, x, size * 0.88, thing.size * size, thing.mirrored)
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
    """Darken a picture to a blue night with a moon in the corner."""
    dark = pixels_HWC * np.array([0.38, 0.42, 0.62]) + np.array([0, 2, 18])
    image = Image.fromarray(dark.clip(0, 255).astype(np.uint8)).resize((SIZE * 3, SIZE * 3))
    ImageDraw.Draw(image).ellipse((150, 9, 180, 39), fill=(250, 245, 200))
    return np.asarray(image.reduce(3))


def random_color(rng: np.random.Generator, named: float = 0.8) -> tuple[str | None, RGB]:
    """Draw a named colour (slightly moved), or else (1 - named) any colour of the wheel."""
    if rng.random() < named:
        name = str(rng.choice(list(PALETTE)))
        return name, jittered(PALETTE[name], rng)
    return None, any_color(rng)


def distance(one: RGB, other: RGB) -> float:
    """Measure how far apart two colours are (Euclidean, 0-442)."""
    return float(np.linalg.norm(np.subtract(one, other)))


def random_thing(rng: np.random.Generator, slot: Slot, against: RGB, held_out: bool) -> Thing:
    """Draw a thing that can be told from its background; `held_out` admits test combinations."""
    while True:
        name: ThingName = THING_NAMES[int(rng.integers(len(THING_NAMES)))]
        color, rgb = random_color(rng)
        if distance(rgb, against) > 90 and (held_out or not is_held_out(name, color)):
            break
    size = float(rng.uniform(0.4, 0.48) if slot != "middle" else rng.uniform(0.5, 0.68))
    return Thing(
        name, color, rgb, slot, float(rng.uniform(-0.03, 0.03)), size, bool(rng.random() < 0.5)
    )


def random_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """Draw a scene: one thing in two of three scenes, else two of different names."""
    background, rgb = random_color(rng)
    texture: Texture = TEXTURES[int(rng.choice(4, p=[0.49, 0.17, 0.17, 0.17]))]
    if rng.random() < 0.65:
        slot: Slot = ("left", "middle", "right")[int(rng.choice(3, p=[0.25, 0.5, 0.25]))]
        things = (random_thing(rng, slot, rgb, held_out),)
    else:
        left = random_thing(rng, "left", rgb, held_out)
        right = random_thing(rng, "right", rgb, held_out)
        while right.name == left.name:
            right = random_thing(rng, "right", rgb, held_out)
        things = (left, right)
    return Scene(background, rgb, texture, things, bool(rng.random() < 0.4))


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
