"""Answers of slow computations, kept in one file under keys that name their whole content."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from customize.errors import ScoreError

_AT_ONCE = 500
"""Keys asked for in one statement; SQLite allows 999 and more."""


class Store:
    """Float32 vectors by key, in an SQLite file or in memory; several processes may share a file.

    A key holds everything that shaped its vector (picture, model, version), so nothing goes stale.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open or begin the file; raises ScoreError for one that is no such file."""
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path or ":memory:", timeout=60)
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, value BLOB NOT NULL)"
                )
        except sqlite3.Error as error:
            raise ScoreError(
                f"{path}: it cannot be opened as a cache ({error}); expected a file that "
                "`customize score` began; remove it, or name another"
            ) from None

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors (D,) that are here, by key."""
        found: dict[str, np.ndarray] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows: Iterable[tuple[str, bytes]] = self._database.execute(
                f"SELECT key, value FROM vectors WHERE key IN ({marks})", some
            )
            found |= {key: np.frombuffer(value, np.float32) for key, value in rows}
        return found

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors (D,), all of them or, in a process killed here, none."""
        rows = [(key, vector.astype(np.float32).tobytes()) for key, vector in vectors.items()]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
