"""Which other edits the adapter is to leave as the base makes them."""

from __future__ import annotations

from pathlib import Path

from customize.errors import Fault, RecipeError
from customize.families.base import Base
from customize.families.known_edits import known_edits
from customize.files.text import Unreadable, read_text
from customize.recipe.sections import Preservation


def instructions_to_preserve(section: Preservation, base: Base) -> tuple[str, ...]:
    """Return the instructions to hold to the base's own predictions, none when the share is 0.

    Raises RecipeError for an empty file of them, BaseModelError when the base's own list is broken.
    """
    if section.share == 0:
        return ()
    match section.instructions:
        case "base":
            return known_edits(base)
        case Path() as path:
            return _from_file(path)
        case given:
            return tuple(given)


def _from_file(path: Path) -> tuple[str, ...]:
    place = "preservation.instructions"
    try:
        text = read_text(path)
    except Unreadable as error:
        raise RecipeError("recipe", [Fault(place, f"{path}: {error.found}", error.cure)]) from None
    lines = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not lines:
        raise RecipeError("recipe", [Fault(place, f"{path} is empty", "write one a line")])
    return lines
