"""Where small files go: never over another file unasked, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from customize.errors import OutputExistsError


def refuse_existing(*paths: Path, overwrite: bool) -> None:
    """Raise OutputExistsError for the first path that is there, unless it may be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputExistsError(
                f"{path} is there already; expected a free name; choose another, move it away or "
                "add --overwrite"
            )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
