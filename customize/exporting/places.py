"""Where small files go: never over another file unasked, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def set_aside(*places: Path) -> Iterator[None]:
    """Move what lies at `places` out of the way of what is written there, and then remove it.

    Where writing fails, what it left there is removed and everything is back.
    """
    moved: list[tuple[Path, Path]] = []
    try:
        for place in filter(Path.exists, places):
            aside = place.with_name(f".replaced-{os.getpid()}-{place.name}")
            place.replace(aside)
            moved.append((place, aside))
        yield
    except BaseException:
        for place, aside in moved:
            _remove(place)
            aside.replace(place)
        raise
    for _, aside in moved:
        _remove(aside)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
