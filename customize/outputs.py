"""Files that commands write: never over another unasked, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from customize.errors import OutputExistsError


def refuse_existing(*paths: Path, overwrite: bool, more: str = "") -> None:
    """Raise OutputExistsError for the first path that is there, unless it may be replaced.

    `more` is what the message adds.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputExistsError(
                f"{path}: it is there already; expected a free name; choose another output, or "
                f"allow replacing it (--overwrite){more}"
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name that becomes `path` when all went well, and nothing otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file whole or not at all, and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
