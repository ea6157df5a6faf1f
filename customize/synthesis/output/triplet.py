"""A finished triplet: two pictures on the disk, what lies between them, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Triplet:
    """`source` and `edited` are relative to the output folder; `provenance` is plain values.

    A `weight` says how often training draws it, 1 being as often as any other.
    """

    name: str
    source: Path
    instruction: str
    edited: Path
    source_caption: str | None
    edited_caption: str | None
    provenance: Mapping[str, Any]
    weight: float = 1.0

    def row(self) -> dict[str, Any]:
        """Return the row of `pairs.jsonl`, as `customize.pairs` reads it."""
        row: dict[str, Any] = {
            "source": self.source.as_posix(),
            "instruction": self.instruction,
            "edited": self.edited.as_posix(),
        }
        if self.source_caption is not None and self.edited_caption is not None:
            row |= {"source_caption": self.source_caption, "edited_caption": self.edited_caption}
        return row if self.weight == 1 else row | {"weight": self.weight}
