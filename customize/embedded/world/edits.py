"""Edits of the drawn world: (source, instruction, target, captions), drawn twice with one thing
changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np

from customize.embedded.world.looks import Look, UnknownLook, apply_look, random_look
from customize.embedded.world.photos import random_crop
from customize.embedded.world.random_scenes import random_scene
from customize.embedded.world.scene_changes import (
    SceneChange,
    change_each_thing,
    change_place,
    without_effect,
)
from customize.embedded.world.scenes import SIZE, Scene, caption_of, draw_scene
from customize.embedded.world.wordings import KEEP, is_unseen, random_wording

EditKind = Literal[
    "background", "texture", "time", "photo look", "scene look",
    "recolor", "add", "remove", "replace", "keep",
]  # fmt: skip
GLOBAL_KINDS: tuple[EditKind, ...] = ("background", "texture", "time", "photo look", "scene look")
LOCAL_KINDS: tuple[EditKind, ...] = ("recolor", "add", "remove", "replace")
SHARES: dict[EditKind, float] = {
    "background": 0.08, "texture": 0.05, "time": 0.04, "photo look": 0.15, "scene look": 0.04,
    "recolor": 0.14, "add": 0.08, "remove": 0.18, "replace": 0.18, "keep": 0.06,
}  # fmt: skip
UNKNOWN_LOOKS = 0.12
"""How often a scene to be changed is seen in a look that no instruction names."""


@dataclass(frozen=True)
class DrawnEdit:
    """One example of the world; pictures are uint8 (size, size, 3).

    `color` is the colour the instruction asks for, where it asks for one; `held_out` says that the
    combination of words was never drawn for training; `change` is what happened to the scene, where
    the pictures are of one in its plain look.
    """

    kind: EditKind
    source_HWC: np.ndarray
    instruction: str
    target_HWC: np.ndarray
    source_caption: str
    target_caption: str
    color: str | None = None
    held_out: bool = False
    change: SceneChange | None = None


def random_edit(
    seed: tuple[int, ...], test: bool = False, kind: EditKind | None = None, size: int = SIZE
) -> DrawnEdit:
    """Draw the edit of a seed; `test` uses unseen photographs and admits held-out combinations."""
    return random_edits(seed, test, kind, size)[0]


def random_edits(
    seed: tuple[int, ...], test: bool = False, kind: EditKind | None = None, size: int = SIZE
) -> list[DrawnEdit]:
    """Draw the edits of a seed: where one thing of a scene changes, each of its things in turn.

    Such edits differ in one word and in what it names, which is how that word is learned.
    """
    rng = np.random.default_rng((*seed, int(test)))
    if kind is None:
        kinds, shares = list(SHARES), np.array(list(SHARES.values()))
        kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
    while True:
        edits = _try_edits(kind, rng, test, size)
        edits = [edit for edit in edits if test or not edit.held_out]
        if edits:
            return edits


def _try_edits(kind: EditKind, rng: np.random.Generator, test: bool, size: int) -> list[DrawnEdit]:
    match kind:
        case "photo look":
            return [_look_edit(kind, random_crop(rng, test, size), "a photograph", rng)]
        case "scene look":
            scene = random_scene(rng, test)
            return [_look_edit(kind, draw_scene(scene, size), caption_of(scene), rng)]
        case "keep":
            return [_keep_edit(rng, test, size)]
        case "time":
            change = change_place(kind, random_scene(rng, test), rng)
            return _drawn(kind, [change] if change else [], None, size)
        case "background" | "texture" | "add":  # a colour asked for is the colour seen by day alone
            scene = by_day(random_scene(rng, test, 1 if kind == "add" else None))
            change = change_place(kind, scene, rng)
            return _drawn(kind, [change] if change else [], None, size)
        case "recolor" | "remove" | "replace":
            scene = by_day(random_scene(rng, test, twins=True))
            unknown = kind != "recolor" and not test and rng.random() < UNKNOWN_LOOKS
            look = UnknownLook.random(rng) if unknown else None
            return _drawn(kind, change_each_thing(kind, scene, rng), look, size)
        case _ as never:
            assert_never(never)


def by_day(scene: Scene) -> Scene:
    """Show a scene by day."""
    return replace(scene, night=False)


def _drawn(
    kind: EditKind, changes: Sequence[SceneChange], look: UnknownLook | None, size: int
) -> list[DrawnEdit]:
    """Draw changes of one scene, before and after in the same look."""
    if not changes:
        return []
    before = draw_scene(changes[0].before, size)
    source = look.apply(before) if look else before
    edits = []
    for change in changes:
        after = draw_scene(change.after, size)
        edits.append(
            DrawnEdit(
                kind,
                source,
                change.instruction,
                look.apply(after) if look else after,
                caption_of(change.before),
                caption_of(change.after),
                change.color,
                change.held_out,
                None if look else change,
            )
        )
    return edits


def _keep_edit(rng: np.random.Generator, test: bool, size: int) -> DrawnEdit:
    """Ask for nothing, or for what cannot be done: half of the time a thing that is not there."""
    scene = random_scene(rng, test)
    photo = rng.random() < 0.3
    pixels = random_crop(rng, test, size) if photo else draw_scene(scene, size)
    caption, text = ("a photograph" if photo else caption_of(scene)), str(rng.choice(KEEP))
    if not photo and rng.random() < 0.6:
        text = without_effect(scene, rng).instruction
    if rng.random() < 0.4:
        pixels = UnknownLook.random(rng).apply(pixels)
    return DrawnEdit("keep", pixels, text, pixels, caption, caption)


def _look_edit(
    kind: EditKind, pixels: np.ndarray, caption: str, rng: np.random.Generator
) -> DrawnEdit:
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
        wording = random_wording(rng, look.name)
        held_out |= is_unseen(wording, *look.colors)
        words = wording.format(*look.colors)
        instruction = f"{instruction} and {words}" if instruction else words
    target_caption = " ".join([caption, *(look.phrase for look in looks)])
    return DrawnEdit(
        kind, source, instruction, target, source_caption, target_caption, None, held_out
    )
