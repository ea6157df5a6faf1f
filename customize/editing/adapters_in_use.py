"""The adapters applied to an open pipeline: added, scaled together, and taken off again."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.editing.edited_picture import Used
from customize.errors import EditError

if TYPE_CHECKING:
    from customize.adapters.apply import Applied
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base


class AdaptersInUse:
    """Adapters with their strengths, all multiplied by one factor."""

    def __init__(self, pipeline: Any) -> None:
        """Begin with none on `pipeline`."""
        self._pipeline = pipeline
        self._in_use: list[tuple[Used, AdapterFile]] = []
        self._factor = 1.0
        self._applied: Applied | None = None

    def add(self, path: Path, strength: float, base: Base) -> None:
        """Add an adapter; warns where it was made for weights other than the base's.

        Raises EditError for a strength that is no number, AdapterFileError for a file that cannot
        be used; all stays as it was.
        """
        from customize.adapters.at_base import check_fit
        from customize.adapters.file import read_adapter

        if not math.isfinite(strength):
            raise EditError(f"strength {strength}: expected a finite number; 1 is as trained")
        adapter = read_adapter(path)
        if difference := check_fit(adapter, base):
            warnings.warn(f"{path}: {difference}", stacklevel=3)
        used = Used(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), float(strength))
        self._use([*self._in_use, (used, adapter)])

    def clear(self) -> None:
        """Take all off."""
        self._use([])

    def scale(self, factor: float) -> None:
        """Multiply every strength, now and later, by `factor`."""
        if factor != self._factor:
            self._factor = factor
            self._use(self._in_use)

    def used(self) -> tuple[Used, ...]:
        """Say which adapters are in use and how strongly."""
        return tuple(
            replace(used, strength=used.strength * self._factor) for used, _ in self._in_use
        )

    def words(self) -> list[str]:
        """List the words that they taught."""
        return [c.word for _, file in self._in_use for c in file.header.concepts if c.word]

    def _use(self, adapters: list[tuple[Used, AdapterFile]]) -> None:
        """Apply these and no others; where that fails, those in use again."""
        from customize.adapters.apply import apply_adapters

        def apply(chosen: list[tuple[Used, AdapterFile]]) -> Applied:
            strengths = [(file, used.strength * self._factor) for used, file in chosen]
            return apply_adapters(self._pipeline, strengths)

        if self._applied is not None:
            self._applied.remove()
        try:
            self._applied = apply(adapters)
        except BaseException:
            self._applied = apply(self._in_use)
            raise
        self._in_use = adapters
