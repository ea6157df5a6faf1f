"""The door for tables of choices: they may come from anyone, so each field is checked and bounded.

Pictures lie in the table's own folder or below: a table cannot make anyone read other files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from customize.editing.edited_picture import Settings
from customize.errors import Fault, FaultsError
from customize.files.spelling import resolved
from customize.files.text import found_at
from customize.pairs.layouts.table_rows import parse_rows
from customize.pairs.picture_files import PICTURE_SUFFIXES, one_line
from customize.scoring.choices.choice import FORMAT, PERSON, TABLE, Choice, Result, Won

MOST_BYTES = 64 << 20
MOST_LETTERS = 2000
_CURE = "keep the line as `customize` wrote it, or remove it"
_SETTINGS = TypeAdapter(Settings)


def read_choices(path: Path) -> list[Choice]:
    """Read a table of choices, or that of the folder `path`; pictures are not opened.

    Raises FaultsError with every fault there is.
    """
    table = path / TABLE if path.is_dir() else path
    title = f"choices at {table}"
    if not table.is_file():
        cure = "make choices in `customize studio`, or correct the path"
        raise FaultsError(title, [Fault(table.name, found_at(table), cure)])
    if table.stat().st_size > MOST_BYTES:
        found = f"it is larger than {MOST_BYTES >> 20} MiB"
        raise FaultsError(title, [Fault(table.name, found, "expected a table of choices")])
    empty = Fault(table.name, "holds no choices", "make some in `customize studio`")
    return parse_rows(table, _choice, title=title, empty=empty)


def _choice(place: str, row: Mapping[str, Any], folder: Path) -> Choice | list[Fault]:
    """Return a row's choice, or each of its faults."""
    if row.get("format") != FORMAT:
        found = f"its format is {row.get('format')!r:.60}, expected {FORMAT!r}"
        return [Fault(place, found, "name a table that `customize` wrote")]
    won, known = row.get("won"), get_args(Won)
    parts: dict[str, Any] = {
        "source": _picture(place, row.get("source"), folder, "source"),
        "instruction": _text(place, row.get("instruction"), "instruction"),
        "first": _result(place, row.get("first"), folder, "first"),
        "second": _result(place, row.get("second"), folder, "second"),
        "won": won if won in known else Fault(place, f"won is {won!r:.40}", f"use one of {known}"),
        "by": _text(place, row.get("by", PERSON), "by"),
    }
    faults = [part for part in parts.values() if isinstance(part, Fault)]
    return faults or Choice(**parts)


def _result(place: str, value: object, folder: Path, role: str) -> Result | Fault:
    if not isinstance(value, dict):
        return Fault(place, f"{role} is {value!r:.40}, no result", _CURE)
    picture = _picture(place, value.get("picture"), folder, f"{role}.picture")
    label = _text(place, value.get("label"), f"{role}.label")
    try:
        settings = _SETTINGS.validate_python(value.get("settings"))
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {}
        named = ".".join(str(part) for part in first.get("loc", ()))
        found = (
            f"{role}.settings.{named} is not as expected ({first.get('msg', 'nested too deep')})"
        )
        return Fault(place, found, _CURE)
    numbers = [settings.text_guidance, settings.image_guidance]
    if not all(map(math.isfinite, [*numbers, *(used.strength for used in settings.adapters)])):
        return Fault(place, f"{role}.settings holds numbers that are none", _CURE)
    if isinstance(picture, Fault):
        return picture
    return label if isinstance(label, Fault) else Result(picture, label, settings)


def _picture(place: str, value: object, folder: Path, role: str) -> Path | Fault:
    """Return the picture named, which lies in `folder`; links out of it do not count."""
    if not isinstance(value, str) or not 0 < len(value) <= 300 or "\0" in value:
        return Fault(place, f"{role} is {value!r:.60}, no name of a picture", _CURE)
    path, named = folder / value, PurePosixPath(value)
    inside = not named.is_absolute() and ".." not in named.parts and "\\" not in value
    if not inside or not resolved(path).is_relative_to(resolved(folder)):
        cure = "put the picture there, or remove the line"
        return Fault(place, f"{role} {value!r:.60} is outside of the table's folder", cure)
    if named.suffix.lower() not in PICTURE_SUFFIXES or not path.is_file():
        return Fault(place, f"{role} {value!r:.60} is no picture there", _CURE)
    return path


def _text(place: str, value: object, role: str) -> str | Fault:
    if isinstance(value, str) and 0 < len(text := one_line(value)) <= MOST_LETTERS:
        return text
    return Fault(
        place, f"{role} is {value!r:.40}", f"expected 1 to {MOST_LETTERS} letters; {_CURE}"
    )
