"""Which other edits the adapter is to leave as the base makes them."""

from __future__ import annotations

import json
from pathlib import Path

from customize.errors import BaseModelError, Fault, RecipeError
from customize.families.bases import Base
from customize.recipe.sections import Preservation

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


def instructions_to_preserve(section: Preservation, base: Base) -> tuple[str, ...]:
    """Return the instructions to hold to the base's own predictions, none when the share is 0.

    Raises RecipeError for an empty file of them, BaseModelError when the base's own list is broken.
    """
    if section.share == 0:
        return ()
    match section.instructions:
        case "base":
            return _own(base)
        case Path() as path:
            return _from_file(path)
        case given:
            return tuple(given)


def _from_file(path: Path) -> tuple[str, ...]:
    place = "preservation.instructions"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault(place, f"{path} cannot be read ({error})", "save it as UTF-8 text")
        raise RecipeError("recipe", [fault]) from None
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise RecipeError("recipe", [Fault(place, f"{path} is empty", "write one a line")])
    return lines


def _own(base: Base) -> tuple[str, ...]:
    """Read `instructions` of the `customize.json` beside the base's weights, else `COMMON`."""
    path = base.folder / "customize.json"
    if not path.is_file():
        return COMMON
    try:
        own = json.loads(path.read_text(encoding="utf-8")).get("instructions", COMMON)
        if not own or not all(isinstance(text, str) for text in own):
            raise ValueError("instructions is no list of texts")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({error}); expected instructions, a list of texts; "
            "mend it, or list preservation.instructions in the recipe"
        ) from None
    return tuple(own)
