"""What a system refuses while something is written, as one message that names the right disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from customize.errors import OutputError

_FULL = frozenset((errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)))
# safetensors says in its text what Python's own errors hold as a number.
_NUMBER = re.compile(r"(?:os error|code:) (\d+)")
_FULL_WORDS = ("no space left", "quota exceeded", "disk is full", "disk full")
_ALMOST_NOTHING = 2**14
"""Bytes free below which a writer's odd error is taken for a full disk."""


def number_of(error: BaseException) -> int | None:
    """Return the system's number for an error, also where a library gives it in its text alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def is_full(error: BaseException, place: Path | None = None) -> bool:
    """Tell whether an error is a full disk or a spent quota.

    With a `place` that is being written, any error of a disk without room counts: encoders and
    databases hide the reason.
    """
    if isinstance(error, OutputError) and error.__cause__ is not None:
        error = error.__cause__
    words = str(error).lower()
    if number_of(error) in _FULL or any(word in words for word in _FULL_WORDS):
        return True
    return place is not None and isinstance(error, OSError) and free_at(place) < _ALMOST_NOTHING


def existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def disk_of(path: Path) -> Path:
    """Return where the disk that holds `path`, or would, is mounted."""
    there = Path(os.path.realpath(existing(path)))
    return next(place for place in (there, *there.parents) if os.path.ismount(place))


def free_at(path: Path) -> int:
    """Return the bytes that are free on the disk of `path`."""
    return shutil.disk_usage(existing(path)).free


def check_room(path: Path, size: int) -> None:
    """Raise OutputError where the disk of `path` lacks room for `size` bytes."""
    if free_at(path) < size:
        raise full_disk(path, size)


def full_disk(path: Path, size: int | None = None) -> OutputError:
    """Word a disk that ran full while `path` was written, or that is too full for `size` bytes."""
    needed = "room to write" if size is None else f"room for {size_told(size)}"
    return OutputError(
        f"{path}: the disk of {disk_of(path)} is full ({size_told(free_at(path))} free); expected "
        f"{needed}",
        "free some, or name an output on another disk, and repeat",
    )


def size_told(size: float) -> str:
    """Write a number of bytes for people.

    >>> size_told(3_400_000_000), size_told(12_300_000), size_told(0)
    ('3.4 GB', '12.3 MB', '0.0 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def naming_disk(path: Path, *, everything: bool = False) -> Iterator[None]:
    """Turn a full disk, met while `path` is written inside, into an OutputError that names it.

    With `everything` any refusal of the system becomes one: for code that only writes.
    """
    try:
        yield
    except OutputError:
        raise
    except Exception as error:  # each library that writes has an error class of its own
        if is_full(error, path):
            raise full_disk(path) from error
        if everything and isinstance(error, OSError):
            raise refused(path, error) from error
        raise


def refused(path: Path, error: OSError) -> OutputError:
    """Word what the system says of a place that it lets nobody write."""
    match error.errno:
        case errno.ENAMETOOLONG:
            found, cure = "a name of it is longer than the disk takes", "choose a shorter one"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            found, cure = f"it may not be written ({error.strerror})", "allow it, or name another"
        case errno.ENOTDIR | errno.EEXIST:
            found = "a file lies where a folder is needed"
            cure = "move it away, or name another"
        case _:
            found = f"it cannot be written ({error.strerror or error})"
            cure = "name another output"
    shown = str(path) if len(str(path)) < 120 else f"{str(path)[:100]}..."
    return OutputError(f"{shown}: {found}; expected a place for an output", cure)
