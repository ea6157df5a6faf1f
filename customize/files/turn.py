"""Writers of one file who wait for each other, for a moment each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Hold the file `lock` while inside, after whoever holds it now, where systems have such locks.

    The system lets go of it when the process ends, however it ends; the empty file stays.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with lock.open("a") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
