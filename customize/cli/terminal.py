"""Between a terminal and the commands: names as disks spell them, text of strangers as text."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from customize.drawing.escape import visible
from customize.files.spelling import as_stored

_KEPT = "\n\t"
_MARKS = "+=:"
"""What stands between two files, an option and its file, a file and its strength."""


def spelled_as_stored(words: Iterable[str]) -> list[str]:
    """Write names of files as the disk does, wherever in a command line they stand.

    Accents typed are one character, and on a disk often two; no other word is changed.
    """
    return [_spelled(word) for word in words]


def _spelled(word: str) -> str:
    if word.isascii() or "://" in word or os.path.lexists(word):
        return word
    stored = as_stored(Path(word))
    if stored != Path(word):
        return str(stored)
    if mark := next((mark for mark in _MARKS if mark in word), None):
        return mark.join(map(_spelled, word.split(mark)))
    return word


class Shown:
    """A stream on which control characters, of a file's name or an adapter, are shown as escapes.

    A terminal would obey them: move, colour, hide what was said before.
    """

    def __init__(self, stream: TextIO) -> None:
        """Take the stream that is written to in the end."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text that nothing obeys."""
        self._stream.write(visible(text, keep=_KEPT))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self._stream, name)
