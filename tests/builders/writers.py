"""A writer of edits that needs no model."""

from __future__ import annotations

from collections.abc import Sequence

from customize.synthesis.writing.rewrite import Answer, Rejection, Rewrite


class ToyWriter:
    """Paints what it is told of, refuses every fifth caption, and repeats itself once."""

    name, licence, waits = "toy writer", "Apache-2.0", True

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        return [
            Rejection(c, "refused") if int(c.split()[-1]) % 5 == 0 else
            Rewrite(c, "paint it blue", f"{c} blue")
            for c in captions
        ]  # fmt: skip
