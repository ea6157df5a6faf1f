"""One choice: two results of the same edit side by side, and which one is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from customize.editing.edited_picture import Settings

FORMAT = "customize-choice 1"
TABLE = "choices.jsonl"
"""The table of a folder of choices; its pictures lie in `pictures/` beside it."""

Won = Literal["first", "second", "tie", "neither"]
PERSON = "person"

Contestant = tuple[str, tuple[tuple[str, float], ...]]
"""What made a result: the base's fingerprint, and each adapter's sha256 with its strength."""


@dataclass(frozen=True)
class Result:
    """One result: its picture, what it is called, and all that it follows from."""

    picture: Path
    label: str
    settings: Settings

    @property
    def contestant(self) -> Contestant:
        """Return what made it, the same for every seed, instruction and source."""
        used = sorted((each.sha256, each.strength) for each in self.settings.adapters)
        return self.settings.base_fingerprint, tuple(used)


@dataclass(frozen=True)
class Choice:
    """Two results of one source and instruction, shown as first and second, and which one won.

    `tie` says that they are equally good, `neither` that none of them is of use. `by` is "person",
    or "judge" and the judge's name.
    """

    source: Path
    instruction: str
    first: Result
    second: Result
    won: Won
    by: str = PERSON

    @property
    def winner(self) -> Result | None:
        """Return the better result, None where there is none."""
        return {"first": self.first, "second": self.second}.get(self.won)

    @property
    def loser(self) -> Result | None:
        """Return the result that the better one was preferred to."""
        return {"first": self.second, "second": self.first}.get(self.won)


def decided(choices: Sequence[Choice]) -> list[Choice]:
    """List the choices in which one result won."""
    return [choice for choice in choices if choice.winner is not None]
