"""Files and folders that commands write: never over others unasked, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from customize.errors import OutputExistsError

REPLACE = "choose another output, or allow replacing it (--overwrite)"


def refuse_existing(*paths: Path, overwrite: bool = False, cure: str = REPLACE) -> None:
    """Raise OutputExistsError for the first path that is there, unless it may be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path}: it is there already; expected a free name; {cure}")


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


_PLACE = "_name_or_path"
"""Where diffusers and transformers note what a model was opened from: often a private folder."""


def forget_places(folder: Path) -> None:
    """Strike from every config in `folder` and below where the model was opened from."""
    for path in sorted(folder.rglob("*.json")):
        text = path.read_text("utf-8")
        if f'"{_PLACE}"' not in text:
            continue
        content = json.loads(text)
        if isinstance(content, dict) and content.pop(_PLACE, None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


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
