"""Rows of a JSONL, JSON or CSV table with their places, a fault for each that cannot be read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from customize.errors import Fault, FaultsError
from customize.files.parse import MEND, parse_json
from customize.files.text import MOST_TABLE_BYTES, Unreadable
from customize.pairs.picture_files import name, read_text

Row = tuple[str, dict[str, Any]]
"""A row and its place, such as `pairs.jsonl:3`."""

Parsed = TypeVar("Parsed")

TABLE_SUFFIXES = frozenset((".jsonl", ".json", ".csv"))


def read_rows(path: Path, root: Path) -> Iterator[Row | Fault]:
    """Yield the rows of the table at `path`, or why one is none; places are relative to `root`."""
    text = read_text(path, root, MOST_TABLE_BYTES)
    if isinstance(text, Fault):
        yield text
    elif path.suffix.lower() == ".csv":
        yield from _csv_rows(text, name(path, root))
    elif path.suffix.lower() == ".json" or text.lstrip().startswith("["):
        yield from _json_rows(text, name(path, root))
    else:
        # Only a newline ends a line: others that Unicode knows may stand in a text.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _json_row(line, f"{name(path, root)}:{number}")


def parse_rows(
    table: Path,
    parse: Callable[[str, Mapping[str, Any], Path], Parsed | list[Fault]],
    *,
    title: str,
    empty: Fault,
) -> list[Parsed]:
    """Parse every row of a table: `parse` takes its place, its values and the table's folder.

    Raises FaultsError, under `title`, with every fault there is, with `empty` for a table without
    rows.
    """
    parsed: list[Parsed] = []
    faults: list[Fault] = []
    for row in read_rows(table, table.parent):
        found = [row] if isinstance(row, Fault) else parse(*row, table.parent)
        if isinstance(found, list):
            faults += found
        else:
            parsed.append(found)
    if not parsed and not faults:
        faults = [empty]
    if faults:
        raise FaultsError(title, faults)
    return parsed


def _json_row(line: str, place: str) -> Row | Fault:
    try:
        row = parse_json(line)
    except Unreadable as error:
        cure = error.cure if error.cure != MEND else "write one JSON object on the line"
        return Fault(place, error.found, cure)
    if not isinstance(row, dict):
        return Fault(place, f"a JSON {type(row).__name__}", "write one JSON object on the line")
    return place, row


def _json_rows(text: str, place: str) -> Iterator[Row | Fault]:
    try:
        rows = parse_json(text)
    except Unreadable as error:
        cure = error.cure if error.cure != MEND else "write a JSON list of objects"
        yield Fault(place, error.found, cure)
        return
    if not isinstance(rows, list):
        yield Fault(place, f"a JSON {type(rows).__name__}", "write a JSON list of objects")
        return
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield f"{place}[{number}]", row
        else:
            yield Fault(f"{place}[{number}]", f"{row!r:.40} is not an object", "write an object")


def _csv_rows(text: str, place: str) -> Iterator[Row | Fault]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or ())
        if len(set(columns)) < len(columns):
            double = next(column for column in columns if columns.count(column) > 1)
            yield Fault(f"{place}:1", f"the column {double!r:.60} given twice", "keep one of them")
            return
        for row in reader:
            here = f"{place}:{reader.line_num}"
            if None in row or None in row.values():
                found = "more or fewer cells than the header has columns"
                yield Fault(here, found, "put quotes around cells that hold commas")
            else:
                yield here, row
    except csv.Error as error:
        yield Fault(f"{place}:{reader.line_num}", f"not CSV ({error})", "export the table again")
