"""The one editor that the page keeps open, lent to one question at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from customize.adapters.file import read_header
from customize.editing import Editor


class OpenEditor:
    """Holds the base of the last question; another base takes its place."""

    def __init__(self, device: str | None = None) -> None:
        """Open nothing yet."""
        self._device, self._lock = device, threading.Lock()
        self._editor: Editor | None = None
        self._name = ""

    @contextmanager
    def lent(
        self, adapters: Sequence[tuple[Path, float]], base: str | None = None
    ) -> Iterator[Editor]:
        """Lend the editor with these adapters on; `base` None is the first adapter's own."""
        named = base or (read_header(adapters[0][0]).base_name if adapters else "embedded")
        with self._lock:
            if self._editor is None or self._name != named:
                self._editor = None
                self._editor, self._name = Editor.from_base(named, device=self._device), named
            editor = self._editor.unload()
            for path, strength in adapters:
                if strength:
                    editor.load(path, strength)
            yield editor
