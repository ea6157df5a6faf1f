"""Scenes drawn at random: one, two or three things that can be told from their background."""

from __future__ import annotations

import numpy as np

from customize.embedded.world.colors import PALETTE, RGB, any_color, jittered
from customize.embedded.world.held_out import is_held_out
from customize.embedded.world.scenes import TEXTURES, Scene, Slot, Texture, Thing
from customize.embedded.world.things import THING_NAMES, ThingName

APART = 90
"""How far a thing's colour is from its background's, at least."""
COUNTS = (0.25, 0.45, 0.3)
"""How often a scene holds one, two and three things."""
TWINS = 0.2
"""How often two of several things have one name, so that only colour or side tells them apart."""
_SLOTS: tuple[tuple[Slot, ...], ...] = (("middle",), ("left", "right"), ("left", "middle", "right"))
_SIZES = ((0.5, 0.68), (0.38, 0.46), (0.26, 0.31))
_OUTWARD = (0.0, 0.0, 0.09)
"""How much farther from the middle the outer things stand, by the number of things less one."""


def random_color(rng: np.random.Generator, named: float = 0.8) -> tuple[str | None, RGB]:
    """Draw a named colour (slightly moved), or else (1 - named) any colour of the wheel."""
    if rng.random() < named:
        name = str(rng.choice(list(PALETTE)))
        return name, jittered(PALETTE[name], rng)
    return None, any_color(rng)


def distance(one: RGB, other: RGB) -> float:
    """Measure how far apart two colours are (Euclidean, 0-442)."""
    return float(np.linalg.norm(np.subtract(one, other)))


def random_scene(
    rng: np.random.Generator, held_out: bool = False, count: int | None = None, twins: bool = False
) -> Scene:
    """Draw a scene of `count` things (else one to three) of different names.

    `held_out` admits test combinations of thing and colour; `twins` lets two things share a name,
    in two named colours, in one scene of five that holds several.
    """
    background, rgb = random_color(rng)
    texture: Texture = TEXTURES[int(rng.choice(4, p=[0.49, 0.17, 0.17, 0.17]))]
    count = count or 1 + int(rng.choice(3, p=COUNTS))
    slots = _SLOTS[count - 1]
    if count == 1 and rng.random() < 0.5:
        slots = ("left",) if rng.random() < 0.5 else ("right",)
    alike = twins and rng.random() < TWINS
    things: tuple[Thing, ...] = ()
    while len(things) < count:
        thing = _random_thing(rng, slots[len(things)], count, rgb, held_out)
        if _can_join(thing, things, alike and len(things) == count - 1):
            things = (*things, thing)
    return Scene(background, rgb, texture, things, bool(rng.random() < 0.4))


def _can_join(thing: Thing, things: tuple[Thing, ...], as_twin: bool) -> bool:
    same = [other for other in things if other.name == thing.name]
    if not as_twin or not any(other.color for other in things):
        return not same
    return (
        len(same) == 1
        and None not in (thing.color, same[0].color)
        and (thing.color != same[0].color)
    )


def _random_thing(
    rng: np.random.Generator, slot: Slot, count: int, against: RGB, held_out: bool
) -> Thing:
    while True:
        name: ThingName = THING_NAMES[int(rng.integers(len(THING_NAMES)))]
        color, rgb = random_color(rng)
        if distance(rgb, against) > APART and (held_out or not is_held_out(name, color)):
            break
    alone_aside = count == 1 and slot != "middle"
    size = float(rng.uniform(*_SIZES[1 if alone_aside else count - 1]))
    outward = {"left": -1, "middle": 0, "right": 1}[slot] * _OUTWARD[count - 1]
    dx = outward + float(rng.uniform(-0.03, 0.03))
    return Thing(name, color, rgb, slot, dx, size, bool(rng.random() < 0.5))
