"""One name for one file: accents stored in one character or in two, links that lead elsewhere."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def composed(name: str) -> str:
    """Return a name in the form in which two that look alike are equal (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def resolved(path: Path) -> Path:
    """Return where `path` leads, itself for a link that leads to itself.

    `Path.resolve` raises RuntimeError for those before Python 3.13.
    """
    return Path(os.path.realpath(path))


def as_stored(path: Path) -> Path:
    """Return `path` as the disk spells it: macOS unpacks archives with accents of their own.

    A path that is there comes back as it is; of one that is not, the folders are as stored.
    """
    try:
        if str(path).isascii() or os.path.lexists(path):
            return path
        found = Path(path.anchor)
        for part in path.parts[1 if path.anchor else 0 :]:
            found = found / _entry(found, part)
    except (OSError, ValueError):
        return path
    return found


def _entry(folder: Path, name: str) -> str:
    """Return the name in `folder` that is equal to `name` once both are composed."""
    if name.isascii() or os.path.lexists(folder / name):
        return name
    alike = [entry for entry in os.listdir(folder) if composed(entry) == composed(name)]
    return alike[0] if len(alike) == 1 else name
