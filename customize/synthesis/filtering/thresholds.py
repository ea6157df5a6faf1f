"""What a pair has to reach: numbers as published, or those that keep a wanted share of a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Literal

import numpy as np

from customize.synthesis.filtering.similarities import Similarities

Criterion = Literal["pictures", "first", "second", "direction"]
CRITERIA: tuple[Criterion, ...] = ("pictures", "first", "second", "direction")


@dataclass(frozen=True)
class Thresholds:
    """The least of each similarity; the defaults are those of InstructPix2Pix's code.

    They were chosen for CLIP ViT-L/14: another CLIP's cosines lie elsewhere.
    """

    pictures: float = 0.7
    first: float = 0.2
    second: float = 0.2
    direction: float = 0.2

    def missed(self, found: Similarities) -> Criterion | None:
        """Name the first criterion that a pair does not reach, None for a good pair."""
        return next((name for name in CRITERIA if getattr(found, name) < getattr(self, name)), None)

    def facts(self) -> dict[str, float]:
        """Return them as plain values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def keeping_share(share: float, trial: Sequence[Similarities]) -> Thresholds:
    """Choose thresholds that `share` of the trial's pairs reach, all four together.

    Each is the same quantile of its own similarity, so that no criterion counts more than another;
    the quantile is the highest that leaves enough. Ties may keep more.
    """
    assert trial, "a trial without pairs"
    rows_NC = np.array([astuple(found) for found in trial])
    ranks_NC = (rows_NC[:, None] > rows_NC[None]).mean(axis=1)
    weakest_N = np.sort(ranks_NC.min(axis=1))[::-1]
    wanted = max(1, round(share * len(trial)))
    chosen_NC = rows_NC[ranks_NC.min(axis=1) >= weakest_N[wanted - 1]]
    return Thresholds(*chosen_NC.min(axis=0).tolist())
