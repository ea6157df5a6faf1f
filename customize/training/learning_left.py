"""Whether a concept's loss was still falling when its run ended, and what to try then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LAST = 0.5
"""The share of the steps, from the end, whose trend is looked at."""
CERTAIN = 2.3
"""Standard errors by which the slope has to be below zero."""
WORTH = 0.15
"""The least fall over those steps that is worth saying."""
FEWEST = 40


@dataclass(frozen=True)
class StillFalling:
    """The loss fell by `share` of itself over the last `over` steps; `steps` are worth trying."""

    share: float
    over: int
    steps: int

    def __str__(self) -> str:
        """Say it to the user."""
        return (
            f"the concept's loss was still falling: by {self.share:.0%} over the last {self.over} "
            f"steps; train.steps: {self.steps} may teach it better"
        )


def still_falling(concept_losses: Sequence[float]) -> StillFalling | None:
    """Judge the trend of a run's concept losses, one a step; None where it has levelled off.

    A line is fitted to the logarithm of the last losses by least squares. Steps differ in noise
    level and so in loss, which is the scatter that the slope has to stand out of. What is worth
    trying is as many steps more as would lower the loss by that much again, at most as many as
    there were.
    """
    losses = np.asarray([loss for loss in concept_losses if loss > 0 and math.isfinite(loss)])
    over = int(len(losses) * LAST)
    if over < FEWEST:
        return None
    steps = np.arange(over, dtype=np.float64)
    logs = np.log(losses[-over:])
    steps -= steps.mean()
    spread = float(steps @ steps)
    slope = float(steps @ logs) / spread
    scatter = logs - logs.mean() - slope * steps
    error = math.sqrt(float(scatter @ scatter) / (over - 2) / spread)
    share = 1 - math.exp(slope * over)
    if slope > -CERTAIN * error or share < WORTH:
        return None
    more = len(losses) * min(1.0, share / (1 - LAST))
    return StillFalling(share, over, math.ceil((len(losses) + more) / 50) * 50)
