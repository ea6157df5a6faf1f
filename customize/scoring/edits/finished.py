"""Finished edits: a table with a row for each, or the folder that such a table lies in."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from customize.errors import Fault
from customize.pairs.layouts.table_rows import TABLE_SUFFIXES, parse_rows, read_rows
from customize.pairs.picture_files import find_picture, one_line
from customize.scoring.items import Item

TABLE = "edits.jsonl"
"""The table of a folder of finished edits."""

_PICTURES = ("source", "output", "target", "mask")
_TEXTS = ("instruction", "source_caption", "target_caption", "concept")
_OTHER_NAMES = {"edited": "target", "edited_caption": "target_caption"}
_NEEDED = ("source", "instruction", "output")


def finished_table(path: Path) -> Path | None:
    """Return the table of finished edits at `path`, None where it is something else."""
    table = path / TABLE if path.is_dir() else path
    if not table.is_file() or table.suffix.lower() not in TABLE_SUFFIXES:
        return None
    if path.is_dir():
        return table
    rows = (row for row in read_rows(table, table.parent) if not isinstance(row, Fault))
    return table if any("output" in row for _, row in rows) else None


def read_finished(table: Path) -> list[Item]:
    """Read the edits of a table; rows of one `concept` share their targets as its pictures.

    Paths start at the table's folder. Raises FaultsError with every fault there is.
    """
    cure = f"write one row for each edit: {', '.join(_NEEDED)}"
    empty = Fault(table.name, "holds no edits", cure)
    items = parse_rows(table, _item, title=f"finished edits at {table}", empty=empty)
    return [replace(item, references=tuple(_targets(items, item.concept))) for item in items]


def _targets(items: list[Item], concept: str) -> Iterator[Any]:
    return (item.target for item in items if concept and item.concept == concept and item.target)


def _item(place: str, row: Mapping[str, Any], folder: Path) -> Item | list[Fault]:
    """Return a row's edit, or each of its faults."""
    given = {key: value for key, value in row.items() if value not in (None, "")}
    row = {_OTHER_NAMES.get(key, key): value for key, value in given.items()}
    faults = [_unknown(place, key) for key in row if key not in _PICTURES + _TEXTS]
    values: dict[str, Any] = {}
    for key in _PICTURES:
        if key in row or key in _NEEDED:
            values[key] = find_picture(row.get(key), folder, place, key)
    for key in _TEXTS:
        value = row.get(key)
        if isinstance(value, str) and one_line(value):
            values[key] = one_line(value)
        elif value is not None or key in _NEEDED:
            cure = f"write what it is in `{key}`, or leave it out"
            if key in _NEEDED:
                cure = f"write what was asked for in `{key}`"
            values[key] = Fault(place, f"{key} is {value!r:.40}" if value else f"no {key}", cure)
    faults += [value for value in values.values() if isinstance(value, Fault)]
    return faults or Item(**values, name=place)


def _unknown(place: str, key: str) -> Fault:
    known = [*_PICTURES, *_TEXTS, *_OTHER_NAMES]
    close = difflib.get_close_matches(key, known, n=1)
    cure = f"did you mean {close[0]!r}?" if close else f"use {', '.join(known)}"
    return Fault(place, f"unknown key {key!r}", cure)
