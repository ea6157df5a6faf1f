"""How an instruction names one thing of a scene: by its name, its colour or its side."""

from __future__ import annotations

import numpy as np

from customize.embedded.world.scenes import Scene, Slot

PLAIN = 0.6
"""How often a thing whose name is the only one of its kind goes by the bare name."""
_SIDES: dict[Slot, str] = {
    "left": "on the left",
    "middle": "in the middle",
    "right": "on the right",
}


def references(scene: Scene, index: int) -> tuple[str, ...]:
    """List every phrase that means the thing at `index` and no other, to follow `the`.

    The bare name comes first where it is enough.
    """
    thing = scene.things[index]
    same = [other for other in scene.things if other.name == thing.name]
    phrases = [thing.name] if len(same) == 1 else []
    if thing.color and [other.color for other in same].count(thing.color) == 1:
        phrases.append(f"{thing.color} {thing.name}")
    if [other.slot for other in same].count(thing.slot) == 1:
        phrases.append(f"{thing.name} {_SIDES[thing.slot]}")
    return tuple(phrases)


def random_reference(rng: np.random.Generator, scene: Scene, index: int) -> str:
    """Choose one of the phrases, the bare name in six of ten where it is enough."""
    phrases = references(scene, index)
    if phrases[0] == scene.things[index].name and rng.random() < PLAIN:
        return phrases[0]
    return phrases[int(rng.integers(len(phrases)))]
