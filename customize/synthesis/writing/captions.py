"""Captions to start from: a file of them, or as many as wanted from the drawn world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from customize.errors import Fault, PairsError
from customize.files.parse import parse_json
from customize.files.text import Unreadable, read_text
from customize.synthesis.writing.read_answer import one_line

MOST = 5_000_000
"""Captions read of one file."""
MOST_BYTES = 2**30
LONGEST = 2000
"""Letters of a caption; also what a line may have, times four, before it is refused."""


def read_captions(path: Path) -> list[str]:
    """Read one caption a line, of plain text or of JSON objects with a `caption`.

    Blank lines are passed over. Raises PairsError with every line that holds no caption.
    """
    captions, faults = list[str](), list[Fault]()
    for number, line in _lines(path):
        try:
            caption = _caption(path, line)
        except Unreadable as error:
            faults.append(Fault(f"{path}:{number}", error.found, error.cure))
            continue
        if caption is None or not 0 < len(caption) <= LONGEST:
            found = "no caption" if not caption else f"a caption of {len(caption)} letters"
            cure = f"write a text of 1 to {LONGEST} letters, or an object with `caption`"
            faults.append(Fault(f"{path}:{number}", found, cure))
        else:
            captions.append(caption)
    if faults:
        raise PairsError(f"captions {path}", faults[:20])
    if not captions:
        raise PairsError(f"captions {path}", [Fault(str(path), "no captions", "write one a line")])
    return captions


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbers and lines that are not blank; only a newline ends a line."""
    try:
        lines = read_text(path, MOST_BYTES).split("\n")
    except Unreadable as error:
        raise PairsError(
            f"captions {path}", [Fault(str(path), error.found, f"{error.cure}, one caption a line")]
        ) from None
    if len(lines) > MOST:
        fault = Fault(str(path), f"more than {MOST} lines", "split the file")
        raise PairsError(f"captions {path}", [fault])
    yield from ((n, line.strip()) for n, line in enumerate(lines, 1) if line.strip())


def _caption(path: Path, line: str) -> str | None:
    """Return a line's caption; raises Unreadable for JSON that is none."""
    if path.suffix not in (".jsonl", ".ndjson"):
        return one_line(line)
    row = parse_json(line) if len(line) <= 4 * LONGEST else None
    caption = row.get("caption") if isinstance(row, dict) else None
    return one_line(caption) if isinstance(caption, str) else None
