"""What a writer makes of a caption: an edit in words, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Reason = Literal[
    "no answer", "refused", "not as asked", "unchanged", "duplicate", "too long", "blocked word",
    "unknown words",
]  # fmt: skip


@dataclass(frozen=True)
class Rewrite:
    """A caption, what to do to its picture, and the caption of the picture after that."""

    caption: str
    instruction: str
    edited_caption: str


@dataclass(frozen=True)
class Rejection:
    """A caption without a usable edit; `found` is what was answered, cut short."""

    caption: str
    reason: Reason
    found: str = ""


Answer = Rewrite | Rejection


class Writer(Protocol):
    """Something that edits captions: a language model or a grammar."""

    @property
    def name(self) -> str:
        """The model, for the provenance of what it wrote."""
        ...

    @property
    def licence(self) -> str:
        """What the model's licence is called, `unknown` where nothing says it."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it works elsewhere, so that pictures can be drawn while it writes."""
        ...

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Edit every caption by the randomness of its seed; answers in the captions' order."""
        ...
