"""What a judge is asked and what it says: two scores of one edit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class JudgedEdit:
    """An edit to judge: source, instruction in plain words, and the finished picture."""

    source: Image.Image
    instruction: str
    output: Image.Image


@dataclass(frozen=True)
class Opinion:
    """How well an edit follows its instruction, and how well it keeps the rest, each 0 to 10.

    `scores` is None where there is no answer, and `failure` says why.
    """

    scores: tuple[float, float] | None = None
    failure: str = ""

    def likes(self, least: float) -> bool:
        """Tell whether both scores reach `least`; no answer is no."""
        return self.scores is not None and min(self.scores) >= least

    @property
    def overall(self) -> float | None:
        """Return the geometric mean of both, as GEdit-Bench has it (arXiv 2504.17761, section 4).

        >>> Opinion((9.0, 4.0)).overall
        6.0
        """
        return None if self.scores is None else math.sqrt(self.scores[0] * self.scores[1])


class Judge(Protocol):
    """Whoever has opinions of edits."""

    @property
    def name(self) -> str:
        """What it is called in tables of choices."""
        ...

    @property
    def fingerprint(self) -> str:
        """All that its opinions follow from besides the edit."""
        ...

    @property
    def asked(self) -> str:
        """What it is asked, for reports: the prompt, or the formula."""
        ...

    def opinions(self, edits: Sequence[JudgedEdit]) -> list[Opinion]:
        """Judge every edit, in their order."""
        ...
