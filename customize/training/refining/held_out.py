"""Choices that are not learned from: when they stop agreeing, refining stops."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from customize.adapters import Attached
from customize.families import Family
from customize.training.batches import step_generator
from customize.training.refining.chosen import Chosen, stack_chosen
from customize.training.refining.preference import SHARPEST, margins

SHARE = 0.2
FEWEST = 5
"""Choices below which all are learned from."""
DRAWS = 12
"""Noises and levels at which each choice is looked at."""
EVERY = 10
PATIENCE = 4
"""Looks without a better one after which refining stops."""


def split(chosen: Sequence[Chosen], seed: int) -> tuple[list[Chosen], list[Chosen]]:
    """Return the choices to learn from, and those held out."""
    count = round(SHARE * len(chosen)) if len(chosen) >= FEWEST else 0
    order = random.Random(f"held out {seed}").sample(range(len(chosen)), len(chosen))
    return [chosen[i] for i in sorted(order[count:])], [chosen[i] for i in sorted(order[:count])]


class HeldOut:
    """Looks at the held-out choices every few steps, and keeps what agreed with them best."""

    def __init__(
        self, chosen: Sequence[Chosen], reference: Mapping[str, Tensor], *, at_once: int, seed: int
    ) -> None:
        """Start from the adapter as it is, whose loss is log 2: it favours neither result."""
        self._chosen, self._reference, self._at_once = chosen, reference, at_once
        self._seed, self._waited = seed, 0
        self.best, self.best_step, self.state = math.log(2), 0, dict(reference)

    def look(self, family: Family, attached: Attached, step: int) -> tuple[float, bool]:
        """Return the share of choices the adapter agrees with by now, and whether to go on."""
        loss, share = self._measure(family, attached)
        if loss < self.best:
            self.best, self.best_step, self.state = loss, step, attached.state()
            self._waited = 0
        else:
            self._waited += 1
        return share, self._waited < PATIENCE

    def known(self) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """Return the best adapter, none while that is the reference, and what else was found."""
        found = {"best": self.best, "best_step": self.best_step, "waited": self._waited}
        return (self.state if self.best_step else {}), found

    def know_again(self, state: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
        """Take up what `known` returned."""
        self.best, self.best_step = float(found["best"]), int(found["best_step"])
        self._waited, self.state = int(found["waited"]), dict(state) or self.state

    @torch.no_grad()
    def _measure(self, family: Family, attached: Attached) -> tuple[float, float]:
        """Return the loss at a fixed beta, and the share of margins above 0.

        Noise and levels are drawn anew for each choice, and are the same at every look.
        """
        found: list[Tensor] = []
        errors: list[float] = []
        device = attached.adapter_parameters()[0].device
        for number, each in enumerate(self._chosen):
            generator = step_generator(self._seed, -1 - number)
            for start in range(0, DRAWS, self._at_once):
                batch = stack_chosen([each] * min(self._at_once, DRAWS - start), device)
                noise_BChw = torch.randn(batch.winner_BChw.shape, generator=generator)
                level_B = family.objective.sample_levels(noise_BChw.shape, generator)
                margin_B, error = margins(
                    family, attached, self._reference, batch, noise_BChw, level_B
                )
                found.append(margin_B.cpu())
                errors.append(error)
        margin_B = torch.cat(found).view(-1, DRAWS).mean(1)
        beta = SHARPEST * len(errors) / sum(errors)
        loss = F.softplus(-beta * margin_B).mean()
        return float(loss), float((margin_B > 0).float().mean())
