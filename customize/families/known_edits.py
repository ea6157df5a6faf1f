"""Which edits a base knows by itself: its own list, or else those that any base knows."""

from __future__ import annotations

from customize.errors import BaseModelError
from customize.families.base import Base
from customize.files.parse import load_json

COMMON = (
    *("make it night", "make it sunset", "make it winter", "make it autumn", "make it spring"),
    *("add snow", "add rain", "add fog", "add clouds", "add flowers", "add fireworks"),
    *("turn it into a painting", "make it a watercolor", "make it a pencil sketch"),
    *("make it a cartoon", "make it an oil painting", "make it black and white", "make it sepia"),
    *("make it brighter", "make it darker", "make it warmer", "make it colder", "blur it"),
    *("change the background to a beach", "change the background to a forest"),
    *("put it in the desert", "put it in a city", "make the sky red", "make the sky stormy"),
    *("make it look old", "make it look new", "turn it into gold", "make it out of wood"),
    *("make it blue", "make it green", "make it red", "make it yellow", "remove the background"),
    *("give it a hat", "give it sunglasses", "make her smile", "make him older"),
    *("replace the car with a bus", "replace the tree with a palm", "turn the dog into a cat"),
)
"""Edits that any instruction-editing base knows; a base may name its own in `customize.json`."""


def known_edits(base: Base) -> tuple[str, ...]:
    """Read `instructions` of the `customize.json` beside the base's weights, else `COMMON`.

    Raises BaseModelError where they are there and cannot be understood.
    """
    path = base.folder / "customize.json"
    if not path.is_file():
        return COMMON
    try:
        own = load_json(path).get("instructions", COMMON)
        if not own or not all(isinstance(text, str) for text in own):
            raise ValueError("instructions is no list of texts")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({error}); expected instructions, a list of texts",
            "mend it, or list preservation.instructions in the recipe",
        ) from None
    return tuple(own)
