"""Plain-text tables that fit the terminal, for lint findings, faults and adapter headers."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from customize.drawing.escape import visible

GAP = 2
NARROWEST = 8


def table(
    rows: Sequence[Sequence[str]], titles: Sequence[str] = (), width: int | None = None
) -> str:
    """Return `rows` as columns under `titles`; long cells wrap to fit lines in `width` letters.

    `width` None takes the terminal's, 100 where there is none. What a terminal would obey is shown
    as escapes, line ends apart.

    >>> print(table([["a", "first"], ["bb", "second"]], ["name", "is"]))
    name  is
    a     first
    bb    second
    """
    cells = [titles, *rows] if titles else rows
    lines = [[visible(cell, keep="\n") for cell in row] for row in cells]
    if not lines:
        return ""
    assert len({len(line) for line in lines}) == 1, "rows of unequal length"
    room = width or shutil.get_terminal_size((100, 24)).columns
    widths = _widths([[len(cell) for cell in column] for column in zip(*lines, strict=True)], room)
    return "\n".join(text for line in lines for text in _line(line, widths))


def _widths(lengths: Sequence[Sequence[int]], room: int) -> list[int]:
    """Give every column its longest cell, then take from the widest until the line fits."""
    widths = [max(column) for column in lengths]
    while sum(widths) + GAP * (len(widths) - 1) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Wrap each cell to its column, whatever is in it, and lay the columns side by side."""
    columns = [
        [
            piece
            for part in cell.splitlines()
            for piece in textwrap.wrap(part, width, break_on_hyphens=False) or [""]
        ]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(1, *(len(column) for column in columns))
    full = [column + [""] * (height - len(column)) for column in columns]
    return [
        (" " * GAP)
        .join(piece.ljust(width) for piece, width in zip(pieces, widths, strict=True))
        .rstrip()
        for pieces in zip(*full, strict=True)
    ]
