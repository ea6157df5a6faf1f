"""Pairs listed in a table, one row each: our own `pairs.jsonl`, and other projects' JSONL, JSON and
CSV.

Layouts differ in the names of their columns alone, so they are data. Paths are relative to the
table's folder.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customize.errors import Fault
from customize.pairs.layouts.table_rows import Row, read_rows
from customize.pairs.picture_files import Find, find_picture, instruction_fault, name, one_line
from customize.shapes import Pair


@dataclass(frozen=True)
class Columns:
    """The spellings one layout has for each role; `closed` means any other column is a mistake."""

    layout: str
    source: tuple[str, ...]
    instruction: tuple[str, ...]
    target: tuple[str, ...]
    source_caption: tuple[str, ...] = ()
    target_caption: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()
    closed: bool = False

    def known(self) -> tuple[str, ...]:
        """Return every column name the layout has."""
        captions = self.source_caption + self.target_caption
        return self.source + self.instruction + self.target + captions + self.weight


OURS = Columns(
    "customize table",
    source=("source",),
    instruction=("instruction",),
    target=("edited", "target"),
    source_caption=("source_caption",),
    target_caption=("edited_caption", "target_caption"),
    weight=("weight",),
    closed=True,
)
HUGGING_FACE = Columns(
    "Hugging Face imagefolder",
    source=(
        *("file_name", "input_image", "input_image_file_name", "original_image"),
        *("original_image_file_name", "source_image", "source_image_file_name", "source_img"),
    ),
    instruction=("edit_prompt", "instruction", "edit"),
    target=(
        *("edited_image_file_name", "edited_image", "target_image", "target_image_file_name"),
        *("target_img", "output_image", "output_image_file_name"),
    ),
    source_caption=("original_prompt", "input_prompt", "source_caption", "input_caption"),
    target_caption=("edited_prompt", "output_prompt", "edited_caption", "target_caption"),
)
DIFFSYNTH = Columns(
    "DiffSynth metadata", source=("edit_image",), instruction=("prompt",), target=("image",)
)
MUSUBI = Columns(
    "musubi-tuner JSONL",
    source=("control_path", *(f"control_path_{n}" for n in range(10))),
    instruction=("caption",),
    target=("image_path",),
)
TABLES = (OURS, HUGGING_FACE, DIFFSYNTH, MUSUBI)


def read_table(path: Path, root: Path) -> tuple[str, list[Find]]:
    """Return the table's layout, recognized by its columns, and its pairs and faults."""
    rows: list[Row] = []
    faults: list[Find] = []
    for row in read_rows(path, root):
        if isinstance(row, Fault):
            faults.append(row)
        else:
            rows.append(row)
    if not rows:
        return OURS.layout, faults or [
            Fault(name(path, root), "holds no rows", "write one row for each pair")
        ]
    present = {key for _, row in rows for key in row}
    columns = max(TABLES, key=lambda table: len(_roles(table, present)))
    roles = _roles(columns, present)
    if not roles:
        return "unknown table", [*faults, _unknown_columns(path, root, present)]
    for role in ("source", "instruction", "target"):
        if role not in roles:  # said once for the file instead of once a row
            wanted = " or ".join(getattr(columns, role)[:2])
            faults.append(Fault(name(path, root), f"no column for the {role}", f"add {wanted}"))
    for place, row in rows:
        faults.extend(_pair(place, row, columns, roles, path.parent))
    return columns.layout, faults


def _roles(columns: Columns, present: set[str]) -> list[str]:
    """Return which of the three needed roles have a column among those present."""
    roles = ("source", "instruction", "target")
    return [role for role in roles if present & set(getattr(columns, role))]


def _unknown_columns(path: Path, root: Path, present: set[str]) -> Fault:
    found = f"columns {', '.join(sorted(present))} belong to no known layout"
    return Fault(name(path, root), found, "name them source, instruction, edited")


def _pair(
    place: str, row: Mapping[str, Any], columns: Columns, roles: list[str], folder: Path
) -> Iterator[Find]:
    """Yield the row's pair, or each of its faults."""
    sources = _sources(place, row, columns, folder) if "source" in roles else []
    target = None
    if "target" in roles:
        target = find_picture(_first(row, columns.target), folder, place, "target")
    instruction = _instruction(place, row, columns) if "instruction" in roles else None
    weight = _weight(place, row, columns)
    parts = (*sources, instruction, target, weight)
    yield from (part for part in parts if isinstance(part, Fault))
    if columns.closed:
        yield from _stray_columns(place, row, columns)
    match sources, instruction, target, weight:
        case [Path() as source, *references], str(), Path(), float():
            captions = (_first(row, columns.source_caption), _first(row, columns.target_caption))
            texts = [c if isinstance(c, str) else None for c in captions]
            before, after = texts
            if fault := next((f for t in texts if t and (f := instruction_fault(t, place))), None):
                yield fault
                return
            further = tuple(path for path in references if isinstance(path, Path))
            if len(further) == len(references):
                yield Pair(source, instruction, target, before, after, weight, place, further)


def _sources(
    place: str, row: Mapping[str, Any], columns: Columns, folder: Path
) -> list[Path | Fault]:
    """Find the source picture and further ones, in their order."""
    listed: list[Any] = []
    for column in columns.source:
        value = row.get(column)
        for item in value if isinstance(value, list) else [value]:
            if item not in (None, "", *listed):
                listed.append(item)
    return [find_picture(one, folder, place, "source") for one in listed or [None]]


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
    return next((row[column] for column in columns if row.get(column) not in (None, "")), None)


def _instruction(place: str, row: Mapping[str, Any], columns: Columns) -> str | Fault:
    value = _first(row, columns.instruction)
    if isinstance(value, str) and (said := one_line(value)):
        return instruction_fault(said, place) or said
    wanted = next(
        (column for column in columns.instruction if column in row), columns.instruction[0]
    )
    found = (
        "no instruction"
        if value is None or isinstance(value, str)
        else f"instruction {value!r:.60}"
    )
    return Fault(place, found, f"write what to do to the picture in `{wanted}`")


def _weight(place: str, row: Mapping[str, Any], columns: Columns) -> float | Fault:
    value = _first(row, columns.weight)
    if value is None:
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if math.isfinite(weight) and weight > 0:
        return weight
    return Fault(place, f"weight {value!r:.60}", "write a number above 0, or leave weight out")


def _stray_columns(place: str, row: Mapping[str, Any], columns: Columns) -> Iterator[Fault]:
    for key in row:
        if key not in columns.known():
            close = difflib.get_close_matches(key, columns.known(), n=1)
            cure = f"did you mean {close[0]!r}?" if close else f"use {', '.join(columns.known())}"
            yield Fault(place, f"unknown key {key!r}", cure)
