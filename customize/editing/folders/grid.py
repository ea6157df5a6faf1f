"""Every picture by several instructions, or at several strengths, and sheets to compare them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from PIL import Image

from customize.drawing.contact_sheet import MOST_ROWS, Cell, contact_sheet
from customize.editing.folders.items import Item
from customize.editing.folders.run import Outcome
from customize.editing.folders.thumbnails import SIDE, Store
from customize.errors import EditError, Fault
from customize.files import replacing
from customize.files.remote import Remote
from customize.files.text import Unreadable, read_text

MOST_COLUMNS = 24


def read_instructions(path: Path) -> list[str]:
    """Return a text file's instructions, one a line; raises EditError where there are none."""
    try:
        lines = read_text(path).split("\n")
    except Unreadable as error:
        raise EditError(
            f"instructions {path}: {error.found}; expected a text file, an instruction a line; "
            f"{error.cure}"
        ) from None
    found = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not 0 < len(found) <= MOST_COLUMNS:
        raise EditError(
            f"instructions {path}: {len(found)} of them; expected 1 to {MOST_COLUMNS}, one a line; "
            "split the file"
        )
    return found


def read_strengths(text: str) -> list[float]:
    """Read `0.4,0.7,1.0`; raises EditError.

    >>> read_strengths("0.4, 1")
    [0.4, 1.0]
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not 0 < len(found) <= MOST_COLUMNS or not all(-10 <= each <= 10 for each in found):
        raise EditError(
            f"strengths {text!r:.60}: expected numbers from -10 to 10 with commas between them; "
            "write them as in 0.4,0.7,1.0"
        )
    return list(dict.fromkeys(found))


def spread(
    items: Iterable[Item], instructions: Sequence[str], strengths: Sequence[float]
) -> Iterator[Item]:
    """Repeat every item for each instruction and each strength, in folders named after them."""
    for item in items:
        for number, text in enumerate(instructions or [""], start=1):
            for strength in strengths or [item.strength]:
                parts = ([f"{number:02} {slug(text)}"] if text else []) + (
                    [f"strength {strength:g}"] if strengths else []
                )
                yield replace(
                    item,
                    instructions=(text,) if text else item.instructions,
                    strength=strength,
                    output=PurePosixPath(*parts) / item.output,
                    variant=" · ".join([*([text] if text else []), *parts[bool(text) :]]),
                )


def slug(text: str) -> str:
    """Return what of a text may stand in any file's name.

    >>> slug("Make it <my-dog>, at night!")
    'make-it-my-dog-at-night'
    """
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:48] or "edit"


def sheet_names(pictures: int) -> list[str]:
    """Name the contact sheets of so many pictures, `MOST_ROWS` on each."""
    return [f"sheet_{number + 1}.jpg" for number in range(-(-pictures // MOST_ROWS))]


def write_sheets(folder: Path, outcomes: Iterable[Outcome], store: Store) -> list[Path]:
    """Write contact sheets, pictures down in the order of their names, variants across."""
    rows: dict[Path | Remote, dict[str, Outcome]] = {}
    titles: dict[str, None] = {}
    for outcome in outcomes:
        item = outcome.edit.item
        titles[item.variant] = None
        rows.setdefault(item.image, {})[item.variant] = outcome
    paths = list[Path]()
    listed = [row for _, row in sorted(rows.items(), key=lambda row: _name(row[1]))]
    for number, name in enumerate(sheet_names(len(listed))):
        shown = listed[number * MOST_ROWS : (number + 1) * MOST_ROWS]
        cells = [_row(row, list(titles), store) for row in shown]
        path = folder / name
        with replacing(path) as temporary:
            contact_sheet(cells, ["picture", "source", *titles], cell=SIDE).save(
                temporary, "JPEG", quality=90
            )
        paths.append(path)
    return paths


def _row(row: Mapping[str, Outcome], titles: Sequence[str], store: Store) -> list[Cell]:
    """Return name, source and variants, a reason where one is missing."""
    cells: list[Cell] = [_name(row), "", *[""] * len(titles)]
    for column, title in enumerate(titles, start=2):
        outcome = row.get(title)
        if outcome is None:
            continue
        if isinstance(outcome.done, Fault):
            cells[column] = outcome.done.found
        elif both := store.get(outcome.done.output, outcome.done.key):
            cells[1], cells[column] = _opened(both.before), _opened(both.after)
    return cells


def _name(row: Mapping[str, Outcome]) -> str:
    """Return what messages call the picture of a row."""
    return next(iter(row.values())).edit.item.place


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")
