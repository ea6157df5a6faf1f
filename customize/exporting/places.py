"""Replace whole folders: what was there is removed only once its successor is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
