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


LEAST_ALIKE = 0.1
"""Share of a trial that is rejected for its pictures being too little alike; at most a third of all
that is to be rejected.
"""


def keeping_share(share: float, trial: Sequence[Similarities]) -> Thresholds:
    """Choose thresholds that `share` of the trial's pairs reach, all four together.

    How alike the pictures are only keeps out the least alike: pairs that did not change at all are
    the most alike, so asking for more would prefer them (LOG.md, 2026-11-27). The other three are
    at the same quantile of their own similarities, the highest that leaves enough, so that none
    counts more than another. Ties may keep more.
    """
    assert trial, "a trial without pairs"
    rows_NC = np.array([astuple(found) for found in trial])
    alike_N, rest_NR = rows_NC[:, 0], rows_NC[:, 1:]
    unlike = int(min(LEAST_ALIKE, (1 - share) / 3) * len(trial))
    least_alike = np.sort(alike_N)[unlike]
    ranks_NR = (rest_NR[:, None] > rest_NR[None]).mean(axis=1)
    weakest_N = np.where(alike_N >= least_alike, ranks_NR.min(axis=1), -1)
    wanted = max(1, round(share * len(trial)))
    chosen_NR = rest_NR[weakest_N >= np.sort(weakest_N)[::-1][wanted - 1]]
    return Thresholds(float(least_alike), *chosen_NR.min(axis=0).tolist())
