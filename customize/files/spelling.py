"""Names with accents, which systems store in one character or in two: one name to people."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def composed(name: str) -> str:
    """Return a name in the form in which two that look alike are equal (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def as_stored(path: Path) -> Path:
    """Return `path` as the disk spells it: macOS unpacks archives with accents of their own.

    A path that is there, or is there in no spelling, comes back as it is.
    """
    try:
        if str(path).isascii() or os.path.lexists(path):
            return path
        found = Path(path.anchor)
        for part in path.parts[1 if path.anchor else 0 :]:
            found = found / _entry(found, part)
    except (OSError, ValueError):
        return path
    return found if os.path.lexists(found) else path


def _entry(folder: Path, name: str) -> str:
    """Return the name in `folder` that is equal to `name` once both are composed."""
    if name.isascii() or os.path.lexists(folder / name):
        return name
    alike = [entry for entry in os.listdir(folder) if composed(entry) == composed(name)]
    return alike[0] if len(alike) == 1 else name
