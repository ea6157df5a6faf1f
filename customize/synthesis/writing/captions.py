"""Captions to start from: a file of them, or as many as wanted from the drawn world."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from customize.errors import Fault, PairsError
from customize.synthesis.writing.read_answer import one_line

MOST = 5_000_000
"""Captions read of one file."""
LONGEST = 2000
"""Letters of a caption; also what a line may have, times four, before it is refused."""


def read_captions(path: Path) -> list[str]:
    """Read one caption a line, of plain text or of JSON objects with a `caption`.

    Blank lines are passed over. Raises PairsError with every line that holds no caption.
    """
    captions, faults = list[str](), list[Fault]()
    for number, line in _lines(path):
        caption = _caption(path, line)
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
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if number > MOST:
                    fault = Fault(str(path), f"more than {MOST} lines", "split the file")
                    raise PairsError(f"captions {path}", [fault])
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError:
        fault = Fault(str(path), "not UTF-8 text", "save it as UTF-8, one caption a line")
        raise PairsError(f"captions {path}", [fault]) from None
    except OSError as error:
        fault = Fault(str(path), f"cannot be read ({error.strerror})", "check the file")
        raise PairsError(f"captions {path}", [fault]) from None


def _caption(path: Path, line: str) -> str | None:
    if path.suffix not in (".jsonl", ".ndjson"):
        return one_line(line)
    try:
        row = json.loads(line) if len(line) <= 4 * LONGEST else None
    except (ValueError, RecursionError):
        return None
    caption = row.get("caption") if isinstance(row, dict) else None
    return one_line(caption) if isinstance(caption, str) else None
