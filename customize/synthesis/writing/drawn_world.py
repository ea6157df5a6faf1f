"""A writer without a language model, for offline use: the grammar of the embedded base's world."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import numpy as np

from customize.embedded.world.colors import PALETTE, any_color
from customize.embedded.world.looks import random_look
from customize.embedded.world.random_scenes import APART, distance, random_scene
from customize.embedded.world.scene_changes import (
    PlaceKind,
    SceneChange,
    ThingKind,
    change_each_thing,
    change_place,
)
from customize.embedded.world.scenes import TEXTURES, Scene, Slot, Texture, Thing, caption_of
from customize.embedded.world.things import THING_NAMES, ThingName
from customize.embedded.world.wordings import is_unseen, random_wording
from customize.synthesis.writing.rewrite import Answer, Rejection, Rewrite

KINDS: dict[ThingKind | PlaceKind, float] = {
    "recolor": 0.24, "replace": 0.18, "remove": 0.12, "add": 0.08,
    "background": 0.18, "texture": 0.12, "time": 0.08,
}  # fmt: skip
LOOKS = 0.1
"""How often the look of the whole picture is changed instead of something in it."""
TRIES = 50

_SCENE = re.compile(r"(?P<things>.+) on (?P<ground>an? .*?background)(?P<night> at night)?")
_NOUN = re.compile(r"an? (?P<words>.+)")
_SLOTS: tuple[tuple[Slot, ...], ...] = (("middle",), ("left", "right"), ("left", "middle", "right"))
_SIDE = re.compile(r" (on the (left|right)|in the middle)\b")


def drawn_captions(count: int, seed: int) -> list[str]:
    """Draw captions of scenes as they are drawn for training."""
    return [caption_of(random_scene(np.random.default_rng((seed, 7, n)))) for n in range(count)]


class DrawnWorldWriter:
    """Edits captions of the drawn world as its own edits are drawn, held-out ones left out."""

    name = "the grammar of the drawn world"
    licence = "Apache-2.0"
    waits = False

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Edit every caption; those in other words are rejected."""
        return [self._one(caption, seed) for caption, seed in zip(captions, seeds, strict=True)]

    def _one(self, caption: str, seed: int) -> Answer:
        rng = np.random.default_rng((seed, 8))
        scene = scene_of(caption, rng)
        if scene is None:
            return Rejection(caption, "unknown words", caption[:120])
        if rng.random() < LOOKS:
            return _look(caption, rng)
        kinds, shares = list(KINDS), np.array(list(KINDS.values()))
        for _ in range(TRIES):
            kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
            change = _change(kind, scene, rng)
            if change is None or change.held_out or not _can_be_told(change):
                continue
            if (edited := caption_of(change.after)) != caption:
                return Rewrite(caption, change.instruction, edited)
        return Rejection(caption, "no answer", caption[:120])


def scene_of(caption: str, rng: np.random.Generator) -> Scene | None:
    """Read a caption as `caption_of` writes it; what it does not tell is drawn. None if it is none.

    >>> scene_of("a red dog on a striped blue background at night", np.random.default_rng(0)).night
    True
    >>> scene_of("a photograph of Lisbon", np.random.default_rng(0)) is None
    True
    """
    found = _SCENE.fullmatch(caption)
    if found is None:
        return None
    texture, background = _ground(found["ground"])
    nouns = [_noun(phrase) for phrase in found["things"].split(" and ")]
    if texture is None or not 1 <= len(nouns) <= 3 or None in nouns:
        return None
    rgb = PALETTE[background] if background else any_color(rng)
    things = []
    for slot, noun in zip(_SLOTS[len(nouns) - 1], nouns, strict=True):
        assert noun is not None
        color, name = noun
        own = PALETTE[color] if color else any_color(rng)
        while color is None and distance(own, rgb) < APART:
            own = any_color(rng)
        things.append(Thing(name, color, own, slot))
    return Scene(background, rgb, texture, tuple(things), found["night"] is not None)


def _ground(phrase: str) -> tuple[Texture | None, str | None]:
    """Split `a striped blue background`; the texture is None where a word is unknown."""
    words = phrase.split()[1:-1]
    texture: Texture = "plain"
    if words and words[0] in TEXTURES:
        texture = cast("Texture", words.pop(0))
    if len(words) > 1 or (words and words[0] not in PALETTE):
        return None, None
    return texture, words[0] if words else None


def _noun(phrase: str) -> tuple[str | None, ThingName] | None:
    found = _NOUN.fullmatch(phrase)
    color, _, name = found["words"].rpartition(" ") if found else ("", "", "")
    if name not in THING_NAMES or (color and color not in PALETTE):
        return None
    return color or None, cast("ThingName", name)


def _change(
    kind: ThingKind | PlaceKind, scene: Scene, rng: np.random.Generator
) -> SceneChange | None:
    match kind:
        case "recolor" | "replace" | "remove":
            if kind == "remove" and len(scene.things) == 1:
                return None  # "nothing on a background" is hardly ever drawn
            changes = change_each_thing(kind, scene, rng)
            return changes[int(rng.integers(len(changes)))] if changes else None
        case "add" if len(scene.things) == 1:
            # a caption does not tell where its one thing stands: it may stand aside
            (thing,) = scene.things
            aside: Slot = "left" if rng.random() < 0.5 else "right"
            moved = Thing(thing.name, thing.color, thing.rgb, aside)
            alone = Scene(scene.background, scene.rgb, scene.texture, (moved,), scene.night)
            return change_place(kind, alone, rng)
        case _:
            return change_place(kind, scene, rng)


def _can_be_told(change: SceneChange) -> bool:
    """Tell whether captions say all that the instruction does: not where one thing stands."""
    adds = len(change.after.things) > len(change.before.things)
    alone = len(change.before.things) == 1
    return adds or not alone or _SIDE.search(change.instruction) is None


def _look(caption: str, rng: np.random.Generator) -> Answer:
    while True:
        look = random_look(rng)
        wording = random_wording(rng, look.name)
        if not is_unseen(wording, *look.colors):
            return Rewrite(caption, wording.format(*look.colors), f"{caption} {look.phrase}")
