"""Answers of slow computations, kept in one file under keys that name their whole content."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from customize.errors import ScoreError
from customize.files import make_folder
from customize.files.disk import naming_disk

_SUM = 16
"""Bytes of checksum before each value."""
_AT_ONCE = 500
"""Keys asked for in one statement; SQLite allows 999 and more."""


class Store:
    """Float32 vectors by key, in an SQLite file or in memory; several processes may share a file.

    A key holds everything that shaped its vector (picture, model, version), so nothing goes stale;
    a value that is not what was put under its key is as good as none.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open or begin the file; raises ScoreError for one that is no such file."""
        self.path = path
        if path is not None:
            make_folder(path.parent)
        with self._told():
            self._database = sqlite3.connect(path or ":memory:", timeout=60)
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, value BLOB NOT NULL)"
                )

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors (D,) that are here and as they were put, by key.

        Raises ScoreError for a file that is damaged.
        """
        found: dict[str, np.ndarray] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            with self._told():
                rows: Iterable[tuple[str, bytes]] = self._database.execute(
                    f"SELECT key, value FROM vectors WHERE key IN ({marks})", some
                ).fetchall()
            for key, value in rows:
                if value[:_SUM] == _sum(key, value[_SUM:]):
                    found[key] = np.frombuffer(value[_SUM:], np.float32)
        return found

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors (D,), all of them or, in a process killed here, none."""
        plain = {key: vector.astype(np.float32).tobytes() for key, vector in vectors.items()}
        rows = [(key, _sum(key, value) + value) for key, value in plain.items()]
        with self._told(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Word what SQLite refuses."""
        try:
            with naming_disk(self.path or Path()):
                yield
        except sqlite3.Error as error:
            raise ScoreError(
                f"{self.path}: it cannot be used as a cache ({error}); expected a file that "
                "`customize score` began; remove it, or name another output"
            ) from None


def _sum(key: str, value: bytes) -> bytes:
    """Bind a value to its key and to its own bytes."""
    return hashlib.sha256(key.encode() + b"\0" + value).digest()[:_SUM]
