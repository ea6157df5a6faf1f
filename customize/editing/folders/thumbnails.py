"""Small pictures of what was edited, kept beside the manifest, so that a page is made at once."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from customize.files.disk import naming_disk

THUMBNAILS = ".thumbnails.jsonl"
SIDE = 192


@dataclass(frozen=True)
class Thumbnails:
    """A picture before and after its edit, each the content of a small file."""

    before: bytes
    after: bytes


def thumbnails_of(before: Image.Image, after: Image.Image) -> Thumbnails:
    """Scale both to at most `SIDE` pixels; small ones stay as they are, without loss."""
    return Thumbnails(_small(before), _small(after))


def _small(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=80, lossless=image.size == small.size, method=2)
    return content.getvalue()


class Store:
    """The thumbnails of one output folder, on disk; only their places are in memory."""

    def __init__(self, file: IO[str], path: Path, places: dict[str, int]) -> None:
        """Append to `file`; `places` are where in it outputs' lines begin, in bytes."""
        self._file, self._path, self._places = file, path, places

    def add(self, output: str, key: str, both: Thumbnails) -> None:
        """Keep the thumbnails of an answer."""
        self._places[output] = self._file.tell()
        fields = {
            "output": output,
            "key": key,
            "before": base64.b64encode(both.before).decode(),
            "after": base64.b64encode(both.after).decode(),
        }
        with naming_disk(self._path):
            self._file.write(json.dumps(fields) + "\n")
            self._file.flush()

    def get(self, output: str, key: str) -> Thumbnails | None:
        """Return an answer's thumbnails, None where there are none of just this answer."""
        if output not in self._places:
            return None
        with self._path.open("rb") as file:
            file.seek(self._places[output])
            fields = _fields(file.readline())
        if fields is None or fields["key"] != key:
            return None
        try:
            return Thumbnails(base64.b64decode(fields["before"]), base64.b64decode(fields["after"]))
        except ValueError:
            return None


@contextmanager
def opened_thumbnails(folder: Path) -> Iterator[Store]:
    """Open the thumbnails of an output folder to read and add to; damaged lines count as none."""
    path, places = folder / THUMBNAILS, dict[str, int]()
    with naming_disk(path), path.open("ab+") as file:
        file.seek(0)
        place, ended = 0, True
        for line in file:
            ended = line.endswith(b"\n")
            if (fields := _fields(line)) is not None:
                places[fields["output"]] = place
            place += len(line)
        if not ended:  # cut short by a kill
            file.write(b"\n")
    with naming_disk(path), path.open("a", encoding="utf-8") as file:
        yield Store(file, path, places)


def _fields(line: bytes) -> Mapping[str, str] | None:
    try:
        fields = json.loads(line)
        found = {name: str(fields[name]) for name in ("output", "key", "before", "after")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found
