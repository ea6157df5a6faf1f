"""A table of edits, a row for each picture: `image`, and what differs from the run's settings."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from customize.editing.edited_picture import FORMATS
from customize.editing.folders.items import Item, OutputFormat, output_name
from customize.editing.masks import AUTO, Mask, region_of
from customize.editing.options import RANGES
from customize.errors import EditError, Fault, FaultsError
from customize.pairs.layouts.table_rows import read_rows
from customize.pairs.picture_files import find_picture, one_line

COLUMNS = (
    *("image", "instruction", "seed", "text_guidance", "image_guidance"),
    *("strength", "mask", "region", "output"),
)
CHAIN = " | "
"""Between instructions of a chain, and between their masks, in one cell; JSON may have a list."""


def items_of_table(
    path: Path, instructions: Sequence[str], mask: Mask | None, kind: OutputFormat | None
) -> list[Item | Fault]:
    """Return a table's items, and a fault for each row that is none; paths are relative to it.

    Raises EditError for columns nobody knows: they would have no effect on any row.
    """
    rows = list(read_rows(path, path.parent))
    _check_columns(path, {key for row in rows if not isinstance(row, Fault) for key in row[1]})
    return [
        row if isinstance(row, Fault) else _item(*row, path.parent, instructions, mask, kind)
        for row in rows
    ]


def _check_columns(path: Path, present: set[str]) -> None:
    faults = []
    for key in sorted(map(str, present - set(COLUMNS))):
        close = difflib.get_close_matches(key, COLUMNS, n=1)
        cure = f"did you mean {close[0]!r}?" if close else f"use {', '.join(COLUMNS)}"
        faults.append(Fault(str(path), f"unknown column {key!r:.40}", cure))
    if present and "image" not in present:
        faults.append(Fault(str(path), "no column `image`", "name the column of the pictures so"))
    if faults:
        raise FaultsError(f"table {path}", faults)


def _item(
    place: str,
    row: Mapping[str, Any],
    folder: Path,
    instructions: Sequence[str],
    mask: Mask | None,
    kind: OutputFormat | None,
) -> Item | Fault:
    """Return the row's item, or the first thing wrong with it."""
    image = find_picture(row.get("image"), folder, place, "image")
    if isinstance(image, Fault):
        return image
    try:
        texts = _texts(row.get("instruction")) or tuple(instructions)
        if not texts:
            raise ValueError("no instruction", "write one, or give one for all on the command line")
        numbers = {
            name: _number(row, name)
            for name in ("seed", "text_guidance", "image_guidance", "strength")
        }
        masks = _masks(row, folder, place, len(texts)) or (() if mask is None else (mask,))
        output = _output(row.get("output"), row["image"], image, kind)
    except ValueError as error:
        return Fault(place, *error.args)
    item = Item(image, texts, place, output, masks=masks)
    return replace(item, **{name: value for name, value in numbers.items() if value is not None})


def _texts(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else str(value or "").split(CHAIN)
    if not all(isinstance(text, str) for text in listed):
        raise ValueError(f"instruction {value!r:.60}", "write a text, or a list of texts")
    return tuple(text for text in map(one_line, listed) if text)


def _number(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None or value == "":
        return None
    kind = int if name == "seed" else float
    least, most = RANGES.get(name, (-10.0, 10.0))
    try:
        if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
            raise ValueError
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise ValueError(f"{name} {value!r:.40}", f"write a number, {least:g} to {most:g}")
    return number


def _masks(row: Mapping[str, Any], folder: Path, place: str, count: int) -> tuple[Mask | None, ...]:
    """Read `mask` (a picture, "auto", or one for each instruction of a chain) and `region`."""
    mask, region = row.get("mask"), row.get("region")
    if region not in (None, ""):
        if mask not in (None, ""):
            raise ValueError("both a mask and a region", "keep one")
        try:
            return (region_of(region if isinstance(region, str) else ",".join(map(str, region))),)
        except (EditError, TypeError) as error:
            raise ValueError(str(error), "write X,Y,W,H in pixels") from None
    if mask in (None, ""):
        return ()
    listed = mask if isinstance(mask, list) else str(mask).split(CHAIN)
    if len(listed) not in (1, count):
        raise ValueError(
            f"{len(listed)} masks for {count} instructions", "write one, or one for each"
        )
    masks: list[Mask | None] = []
    for one in listed:
        if one in (None, "", "-"):
            masks.append(None)
        elif one == AUTO:
            masks.append(Mask(auto=True))
        else:
            found = find_picture(one, folder, place, "mask")
            if isinstance(found, Fault):
                raise ValueError(found.found, found.cure)
            masks.append(Mask(file=found))
    return tuple(masks)


def _output(value: Any, written: str, image: Path, kind: OutputFormat | None) -> PurePosixPath:
    """Return where the answer goes: the row's word, else the picture's own name, inside the run."""
    if value in (None, ""):
        named = PurePosixPath(str(written).strip().replace("\\", "/"))
        inside = not named.is_absolute() and ".." not in named.parts
        return output_name(named if inside else PurePosixPath(image.name), kind)
    output = PurePosixPath(str(value).strip())
    if output.is_absolute() or ".." in output.parts or "\0" in str(output):
        raise ValueError(f"output {value!r:.60}", "write a name inside the output folder")
    if output.suffix.lower() not in FORMATS:
        raise ValueError(f"output {value!r:.60}", f"end it in {', '.join(FORMATS)}")
    return output
