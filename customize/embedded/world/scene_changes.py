"""What an instruction changes in a scene, apart from any picture: the background, the hour, or one
thing among others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, assert_never

import numpy as np

from customize.embedded.world.colors import PALETTE, RGB
from customize.embedded.world.held_out import is_held_out
from customize.embedded.world.random_scenes import APART, distance
from customize.embedded.world.references import random_reference, references
from customize.embedded.world.scenes import TEXTURES, Scene, Slot, Thing, with_article
from customize.embedded.world.things import THING_NAMES, ThingName
from customize.embedded.world.wordings import is_unseen, random_wording

ThingKind = Literal["recolor", "remove", "replace"]
PlaceKind = Literal["background", "texture", "time", "add"]
ChangedThing = Literal["named", "other", "both", "nothing"]


@dataclass(frozen=True)
class SceneChange:
    """A scene before and after, and the instruction between; `color` is the one asked for, if
    any.
    """

    before: Scene
    after: Scene
    instruction: str
    color: str | None = None
    held_out: bool = False


@dataclass(frozen=True)
class ThingChange:
    """What happens to a thing, whichever it is: a new colour, a new kind, or that it goes.

    A thing of a new kind keeps its colour, unless it comes with an `rgb` of its own.
    """

    kind: ThingKind
    color: str | None = None
    name: ThingName | None = None
    rgb: RGB | None = None

    def to(self, scene: Scene, indices: tuple[int, ...]) -> Scene:
        """Apply it to the things at `indices`."""
        things = [
            self._changed(thing) if index in indices else thing
            for index, thing in enumerate(scene.things)
        ]
        return replace(scene, things=tuple(thing for thing in things if thing is not None))

    def _changed(self, thing: Thing) -> Thing | None:
        match self.kind:
            case "remove":
                return None
            case "recolor":
                assert self.color is not None
                return replace(thing, color=self.color, rgb=PALETTE[self.color])
            case "replace":
                assert self.name is not None
                if self.rgb is not None:
                    thing = replace(thing, color=None, rgb=self.rgb)
                return replace(thing, name=self.name)
            case _ as never:
                assert_never(never)

    def outcomes(self, scene: Scene, named: int) -> list[tuple[ChangedThing, Scene]]:
        """List what may become of the scene: the change made to the named thing alone first, then
        to every other choice of things.
        """
        everything = range(len(scene.things))
        chosen = [set(c) for n in range(len(scene.things) + 1) for c in combinations(everything, n)]
        chosen.sort(key=lambda indices: indices != {named})
        return [(_verdict(c, named), self.to(scene, tuple(c))) for c in chosen]


def _verdict(changed: set[int], named: int) -> ChangedThing:
    if not changed:
        return "nothing"
    if named not in changed:
        return "other"
    return "named" if changed == {named} else "both"


@dataclass(frozen=True)
class NamedChange(SceneChange):
    """A change of one thing: `change` made to the thing at `index`."""

    change: ThingChange = ThingChange("remove")
    index: int = 0


def change_each_thing(kind: ThingKind, scene: Scene, rng: np.random.Generator) -> list[NamedChange]:
    """Change each thing of a scene in turn, worded alike: the changes differ in what they name.

    Things that the change would leave as they are, or too like the background, are passed over.
    """
    change = ThingChange(
        kind, str(rng.choice(list(PALETTE))), THING_NAMES[int(rng.integers(len(THING_NAMES)))]
    )
    wording = random_wording(rng, kind)
    changes = []
    for index in rng.permutation(len(scene.things)).tolist():
        thing, phrase = scene.things[index], random_reference(rng, scene, index)
        if not _makes_sense(change, scene, thing):
            continue
        words = {"recolor": change.color, "replace": change.name, "remove": None}[kind]
        text = wording.format(phrase, *([words] if words else []))
        held_out = _is_unseen(change, scene, thing, wording)
        color = change.color if kind == "recolor" else None
        after = change.to(scene, (index,))
        changes.append(NamedChange(scene, after, text, color, held_out, change, index))
    return changes


def _makes_sense(change: ThingChange, scene: Scene, thing: Thing) -> bool:
    match change.kind:
        case "remove":
            return True
        case "recolor":
            assert change.color is not None
            rgb = PALETTE[change.color]
            return distance(rgb, thing.rgb) >= 60 and distance(rgb, scene.rgb) >= APART
        case "replace":
            return change.name not in [other.name for other in scene.things]
        case _ as never:
            assert_never(never)


def _is_unseen(change: ThingChange, scene: Scene, thing: Thing, wording: str) -> bool:
    """Tell whether testing alone may ask for this: the new colour of the thing, the new thing, or
    the name beside its neighbours' names.
    """
    match change.kind:
        case "recolor":
            return is_held_out(thing.name, change.color) or is_unseen(wording, change.color)
        case "replace":
            return is_held_out(change.name, thing.color) or is_held_out(thing.name, change.name)
        case "remove":
            others = sorted(other.name for other in scene.things if other is not thing)
            return bool(others) and is_held_out("remove", thing.name, *others)
        case _ as never:
            assert_never(never)


def change_place(kind: PlaceKind, scene: Scene, rng: np.random.Generator) -> SceneChange | None:
    """Change what is around the things; None where this scene does not allow it."""
    color = str(rng.choice(list(PALETTE)))
    match kind:
        case "background":
            after = replace(scene, background=color, rgb=PALETTE[color])
            if any(distance(thing.rgb, after.rgb) < APART for thing in scene.things):
                return None
            wording = random_wording(rng, kind)
            return SceneChange(
                scene, after, wording.format(color), color, is_unseen(wording, color)
            )
        case "texture":
            texture = TEXTURES[int(rng.integers(4))]
            if texture == scene.texture:
                return None
            text = random_wording(rng, kind).format(texture)
            return SceneChange(scene, replace(scene, texture=texture), text)
        case "time":
            after = replace(scene, night=not scene.night)
            return SceneChange(scene, after, random_wording(rng, "night" if after.night else "day"))
        case "add":
            return _addition(scene, color, rng)
        case _ as never:
            assert_never(never)


def _addition(scene: Scene, color: str, rng: np.random.Generator) -> SceneChange | None:
    """Add a thing to the free side, at the slot's own place and size: one picture is right."""
    if len(scene.things) != 1 or scene.things[0].slot == "middle":
        return None
    slot: Slot = "right" if scene.things[0].slot == "left" else "left"
    name = THING_NAMES[int(rng.integers(len(THING_NAMES)))]
    if name == scene.things[0].name or distance(PALETTE[color], scene.rgb) < APART:
        return None
    new = Thing(name, color, PALETTE[color], slot, 0.0, 0.44, mirrored=slot == "right")
    things = (scene.things[0], new) if slot == "right" else (new, scene.things[0])
    wording = random_wording(rng, "add")
    return SceneChange(
        scene,
        replace(scene, things=things),
        wording.format(with_article(color, name), slot),
        color,
        is_held_out(name, color),
    )


def without_effect(scene: Scene, rng: np.random.Generator) -> SceneChange:
    """Ask for a change of something that is not there: the scene stays as it is."""
    kinds: tuple[ThingKind, ...] = ("recolor", "remove", "replace")
    kind = kinds[int(rng.integers(3))]
    present = [phrase for index in range(len(scene.things)) for phrase in references(scene, index)]
    names = [thing.name for thing in scene.things]
    absent = [name for name in THING_NAMES if name not in names]
    name = str(rng.choice(absent))
    colored = [thing for thing in scene.things if thing.color]
    if colored and rng.random() < 0.3:  # the right thing in a wrong colour
        name = f"{rng.choice(list(PALETTE))} {colored[int(rng.integers(len(colored)))].name}"
        if name in present:
            name = str(rng.choice(absent))
    words = {"recolor": list(PALETTE), "replace": absent, "remove": []}[kind]
    text = random_wording(rng, kind).format(name, *([str(rng.choice(words))] if words else []))
    return SceneChange(scene, scene, text)
