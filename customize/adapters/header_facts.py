"""The free parts of an adapter's header, recipe and training facts: what others rely on in them.

Recipes are kept as they were written, by whatever version: they are not validated as recipes, only
so far that whoever reads a field finds the kind of value that belongs there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

LONGEST_TEXT, MOST_VALUES = 10_000, 100_000
# Where the table says nothing of a field, any value may stand there.
_NUMBERS = ("steps", "seconds", "loss", "best_held_out_error", "processes")
_MORE_NUMBERS = ("loss_of_truncation", "mean_loss_of_truncation")
_TEXTS = ("device", "precision", "merged_by", "imported_from", "layout")


def check_training(facts: Mapping[str, Any]) -> None:
    """Raise ValueError, `'training.loss': ...`, for what stands where another kind belongs."""
    _check_size("training", facts)
    for name in (*_NUMBERS, *_MORE_NUMBERS):
        _expect("training", facts, name, (int, float), "a number")
    for name in _TEXTS:
        _expect("training", facts, name, str, "a text")
    _expect("training", facts, "options", dict, "values by name", null=False)
    _expect("training", facts, "inputs", list, "a list", null=False)


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Raise ValueError, `'recipe.train': ...`, for what stands where another kind belongs."""
    _check_size("recipe", recipe)
    for name in ("base", "adapter", "train", "preservation", "pairs", "preview", "save"):
        _expect("recipe", recipe, name, dict, "a section", null=False)
    _expect("recipe.train", recipe.get("train", {}), "learning_rate", (int, float), "a number")
    _expect("recipe.preview", recipe.get("preview", {}), "images", str, "a path")
    _expect("recipe", recipe, "concepts", list, "a list", null=False)
    for number, concept in enumerate(recipe.get("concepts", [])):
        place = f"recipe.concepts.{number}"
        if not isinstance(concept, dict):
            raise ValueError(f"{place!r} (it is no section)")
        _expect(place, concept, "name", str, "a text")
        _expect(place, concept, "pairs", str, "a path")


def shareable(place: str) -> str:
    """Say where something lies without telling of the machine, `./models/mine` for a base's folder.

    Absolute paths become relative ones where they lie in the working folder, else their last name;
    other texts stay as they are.

    >>> shareable("/home/me/models/mine"), shareable("timbrooks/instruct-pix2pix")
    ('./mine', 'timbrooks/instruct-pix2pix')
    """
    if not _is_absolute(place):
        return place
    inside = Path(os.path.expanduser(place))  # which leaves the home of nobody known as it is
    if inside.is_absolute() and inside.is_relative_to(Path.cwd()):
        return f"./{inside.relative_to(Path.cwd()).as_posix()}"
    names = PureWindowsPath(place) if "\\" in place else PurePosixPath(place)
    return f"./{names.name}"


def shareable_recipe(recipe: Any) -> Any:
    """Return a recipe whose paths are `shareable`; lists of instructions stay as they are."""
    match recipe:
        case str():
            return shareable(recipe)
        case dict():
            return {name: shareable_recipe(value) for name, value in recipe.items()}
        case [dict(), *_]:
            return [shareable_recipe(value) for value in recipe]
        case _:
            return recipe


def followed(place: str) -> Path | None:
    """Return the path that a file names if it may be followed: one inside the working folder.

    None for absolute ones, those that leave the folder, and what no system takes for a path.
    """
    if _is_absolute(place) or "\0" in place or "\\" in place:
        return None
    tidy = os.path.normpath(place)
    return None if tidy.split(os.sep, 1)[0] == ".." else Path(tidy)


def _is_absolute(place: str) -> bool:
    return place.startswith(("/", "~")) or PureWindowsPath(place).is_absolute()


def _expect(
    place: str,
    facts: Mapping[str, Any],
    name: str,
    kind: type | tuple[type, ...],
    called: str,
    *,
    null: bool = True,
) -> None:
    """Refuse a value of another kind; its absence is fine, and so is null where that is said."""
    value = facts.get(name)
    if name not in facts or (null and value is None):
        return
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"'{place}.{name}' ({str(value)[:80]!r} is not {called})")


def _check_size(place: str, content: Any) -> None:
    """Bound how long texts are and how many values there are; depth is bounded already."""
    for count, value in enumerate(_values(content), start=1):
        if count > MOST_VALUES:
            raise ValueError(f"{place!r} (it holds more than {MOST_VALUES} values)")
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise ValueError(f"{place!r} (it holds a text of {len(value)} letters)")


def _values(content: Any) -> Iterator[Any]:
    match content:
        case dict():
            for name, value in content.items():
                yield name
                yield from _values(value)
        case list():
            for value in content:
                yield from _values(value)
        case _:
            yield content
