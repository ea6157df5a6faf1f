"""Edits of the drawn world: (source, instruction, target, captions), drawn twice with one thing
changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np

from customize.embedded.world.colors import PALETTE
from customize.embedded.world.looks import Look, apply_look, random_look
from customize.embedded.world.photos import random_crop
from customize.embedded.world.scenes import (
    TEXTURES,
    Scene,
    Slot,
    Thing,
    caption_of,
    distance,
    draw_scene,
    is_held_out,
    random_scene,
    with_article,
)
from customize.embedded.world.things import THING_NAMES
from customize.embedded.world.wordings import KEEP, word_it

Kind = Literal[
    "background", "texture", "time", "photo look", "scene look",
    "recolor", "add", "remove", "replace", "keep",
]  # fmt: skip
GLOBAL_KINDS: tuple[Kind, ...] = ("background", "texture", "time", "photo look", "scene look")
LOCAL_KINDS: tuple[Kind, ...] = ("recolor", "add", "remove", "replace")
SHARES: dict[Kind, float] = {
    "background": 0.1, "texture": 0.08, "time": 0.06, "photo look": 0.2, "scene look": 0.05,
    "recolor": 0.2, "add": 0.1, "remove": 0.07, "replace": 0.1, "keep": 0.04,
}  # fmt: skip


@dataclass(frozen=True)
class DrawnEdit:
    """One example of the world; pictures are uint8 (64, 64, 3).

    `color` is the colour the instruction asks for, where it asks for one; `held_out` says that the
    combination of words was never drawn for training.
    """

    kind: Kind
    source_HWC: np.ndarray
    instruction: str
    target_HWC: np.ndarray
    source_caption: str
    target_caption: str
    color: str | None = None
    held_out: bool = False


def random_edit(seed: tuple[int, ...], test: bool = False, kind: Kind | None = None) -> DrawnEdit:
    """Draw the edit of a seed; `test` uses unseen photographs and admits held-out combinations."""
    rng = np.random.default_rng((*seed, int(test)))
    if kind is None:
        kinds, shares = list(SHARES), np.array(list(SHARES.values()))
        kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
    while True:
        edit = _try_edit(kind, rng, test)
        if edit is not None and (test or not edit.held_out):
            return edit


def _try_edit(kind: Kind, rng: np.random.Generator, test: bool) -> DrawnEdit | None:
    match kind:
        case "photo look":
            return _look_edit(kind, random_crop(rng, test), "a photograph", rng)
        case "scene look":
            scene = random_scene(rng, test)
            return _look_edit(kind, draw_scene(scene), caption_of(scene), rng)
        case "keep":
            return _keep_edit(rng, test)
        case "background" | "texture" | "time" | "recolor" | "add" | "remove" | "replace":
            scene = random_scene(rng, test)
            if kind != "time":  # the colour asked for is the colour seen only by day
                scene = replace(scene, night=False)
            return _scene_edit(kind, scene, rng)
        case _ as never:
            assert_never(never)


def _keep_edit(rng: np.random.Generator, test: bool) -> DrawnEdit:
    scene = random_scene(rng, test)
    photo = rng.random() < 0.5
    pixels = random_crop(rng, test) if photo else draw_scene(scene)
    caption = "a photograph" if photo else caption_of(scene)
    return DrawnEdit("keep", pixels, str(rng.choice(KEEP)), pixels, caption, caption)


def _look_edit(kind: Kind, pixels: np.ndarray, caption: str, rng: np.random.Generator) -> DrawnEdit:
    """Change the look of a whole picture; now and then two looks at once, or from one look to
    another.
    """
    looks = [random_look(rng)]
    second = random_look(rng)
    if rng.random() < 0.2 and looks[0].name != "frame" and second.name in ("frame", "bars"):
        looks.append(second)
    if rng.random() < 0.06:
        source, source_caption = apply_look(pixels, second), f"{caption} {second.phrase}"
        looks = [Look("black and white")]
    else:
        source, source_caption = pixels, caption
    target, instruction, held_out = source, "", False
    for look in looks:
        target = apply_look(target, look)
        words, unseen = word_it(rng, look.name, *look.colors)
        held_out |= unseen
        instruction = f"{instruction} and {words}" if instruction else words
    target_caption = " ".join([caption, *(look.phrase for look in looks)])
    return DrawnEdit(
        kind, source, instruction, target, source_caption, target_caption, None, held_out
    )


def _scene_edit(kind: Kind, scene: Scene, rng: np.random.Generator) -> DrawnEdit | None:
    change = _change(kind, scene, rng)
    if change is None:
        return None
    edited, words, color, new = change
    if any(distance(thing.rgb, edited.rgb) < 90 for thing in edited.things):
        return None
    instruction, held_out = word_it(rng, kind if kind != "time" else words[0], *words)
    if new is not None:
        held_out |= is_held_out(new.name, new.color)
    source, target = draw_scene(scene), draw_scene(edited)
    return DrawnEdit(
        kind, source, instruction, target, caption_of(scene), caption_of(edited), color, held_out
    )


Change = tuple[Scene, tuple[str, ...], str | None, Thing | None]
"""The edited scene, the words its instruction takes, the colour asked for, the thing that is new.
"""


def _change(kind: Kind, scene: Scene, rng: np.random.Generator) -> Change | None:
    color = str(rng.choice(list(PALETTE)))
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    match kind:
        case "background":
            edited = replace(scene, background=color, rgb=PALETTE[color])
            return edited, (color,), color, None
        case "texture":
            texture = TEXTURES[int(rng.integers(4))]
            if texture == scene.texture:
                return None
            return replace(scene, texture=texture), (texture,), None, None
        case "time":
            edited = replace(scene, night=not scene.night)
            return edited, ("night" if edited.night else "day",), None, None
        case "recolor":
            new = replace(thing, color=color, rgb=PALETTE[color])
            if distance(new.rgb, thing.rgb) < 60:
                return None
            return _with(scene, index, new), (thing.name, color), color, new
        case "replace":
            name = THING_NAMES[int(rng.integers(len(THING_NAMES)))]
            if name in [other.name for other in scene.things]:
                return None
            new = replace(thing, name=name)
            return _with(scene, index, new), (thing.name, name), None, new
        case "remove":
            things = tuple(other for other in scene.things if other is not thing)
            return replace(scene, things=things), (thing.name,), None, None
        case "add":
            return _addition(scene, color, rng)
        case "photo look" | "scene look" | "keep":
            raise AssertionError(f"{kind} is not an edit of a scene")
        case _ as never:
            assert_never(never)


def _with(scene: Scene, index: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _addition(scene: Scene, color: str, rng: np.random.Generator) -> Change | None:
    """Add a thing to the free side, at the slot's own place and size: one picture is right."""
    if len(scene.things) != 1 or scene.things[0].slot == "middle":
        return None
    slot: Slot = "right" if scene.things[0].slot == "left" else "left"
    name = THING_NAMES[int(rng.integers(len(THING_NAMES)))]
    if name == scene.things[0].name:
        return None
    new = Thing(name, color, PALETTE[color], slot, 0.0, 0.44, mirrored=slot == "right")
    things = (scene.things[0], new) if slot == "right" else (new, scene.things[0])
    return replace(scene, things=things), (with_article(color, name), slot), color, new
