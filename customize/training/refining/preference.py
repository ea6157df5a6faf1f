"""The loss of preference training: the better result made likelier than the worse one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from customize.adapters import Attached
from customize.families import Family
from customize.training import loss as usual
from customize.training.batches import Batch, Shard, draw, sent
from customize.training.loss import Goal, Losses
from customize.training.refining.chosen import Chosen, ChosenBatch, stack_chosen

FACTOR = 0.2
"""The mean gradient factor that beta is set for."""
SHARPEST = 100.0
"""The largest beta, in units of one over the reference's own error."""
REMEMBERED = 64
"""Margins by which beta is set."""


class Preference:
    """The usual loss of a batch of pairs, which anchors, plus the preference loss of choices.

    `reference` is what the adapter was when refining began, a copy that stays.
    """

    def __init__(
        self, chosen: Sequence[Chosen], reference: Mapping[str, Tensor], *, at_once: int, seed: int
    ) -> None:
        """Take the choices to learn from, `at_once` of them for each batch of pairs."""
        self._chosen, self._reference = chosen, reference
        shapes = [each.shape for each in chosen]
        self._order: Iterator[tuple[int, ...]] = draw([1.0] * len(chosen), shapes, at_once, seed)
        self._margins = deque[float](maxlen=REMEMBERED)
        self._errors = deque[float](maxlen=REMEMBERED)
        self.beta = math.nan

    def __call__(
        self,
        family: Family,
        attached: Attached,
        batch: Batch,
        goal: Goal,
        generator: torch.Generator,
        shard: Shard = Shard(),  # noqa: B008 - frozen
    ) -> Losses:
        """Add the preference loss of the next choices to the usual loss of `batch`.

        It is divided by beta: its gradient is then that of the errors' difference times the factor
        sigmoid(-beta margin), of the size of the usual loss' whatever beta is.
        """
        chosen = stack_chosen([self._chosen[i] for i in next(self._order)], batch.weight_B.device)
        noise_BChw = torch.randn(chosen.winner_BChw.shape, generator=generator)
        level_B = family.objective.sample_levels(noise_BChw.shape, generator)
        # before the anchor: holding the reference changes tensors that a graph would still need
        margin_B, error = margins(family, attached, self._reference, chosen, noise_BChw, level_B)
        anchor = usual.loss(family, attached, batch, goal, generator, shard)
        self._errors.append(error)
        self.beta = beta_for(self._margins, SHARPEST * len(self._errors) / sum(self._errors))
        self._margins.extend(margin_B.detach().tolist())
        preference = F.softplus(-self.beta * margin_B).mean() / self.beta
        return replace(anchor, total=anchor.total + preference)

    def known(self) -> dict[str, list[float]]:
        """Return the latest margins and errors, by which beta is set."""
        return {"margins": list(self._margins), "errors": list(self._errors)}

    def know_again(self, found: Mapping[str, Any], batches: int) -> None:
        """Take up what `known` returned, after so many batches."""
        self._margins.extend(map(float, found["margins"]))
        self._errors.extend(map(float, found["errors"]))
        deque(islice(self._order, batches), maxlen=0)


def margins(
    family: Family,
    attached: Attached,
    reference: Mapping[str, Tensor],
    chosen: ChosenBatch,
    noise_BChw: Tensor,
    level_B: Tensor,
) -> tuple[Tensor, float]:
    """Return how much more the adapter has come to favour each winner (B,), and the error scale.

    Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, equation 14), whose loss is
    -log sigmoid(beta margin) with the margin

        (|e - e_ref(w_t)|^2 - |e - e_theta(w_t)|^2) - (|e - e_ref(l_t)|^2 - |e - e_theta(l_t)|^2),

    winner w and loser l under the same noise e and level t, errors being means over the cells in
    which the two results differ. The scale is the reference's mean error.
    """
    device = chosen.winner_BChw.device
    clean_BChw = torch.cat([chosen.winner_BChw, chosen.loser_BChw])
    noise_BChw, level_B = (
        sent(drawn, device).repeat(2, *[1] * (drawn.dim() - 1)) for drawn in (noise_BChw, level_B)
    )
    conditions = {key: torch.cat([value, value]) for key, value in chosen.conditions.items()}
    noisy_BChw = family.objective.corrupt(clean_BChw, noise_BChw, level_B)
    target_BChw = family.objective.target(clean_BChw, noise_BChw, level_B)
    mask_B1hw = torch.cat([chosen.differs_B1hw, chosen.differs_B1hw])

    def error() -> Tensor:
        """Return the squared errors (2 B,) of the prediction, as the adapter stands."""
        predicted_BChw = family.predict(noisy_BChw, level_B, conditions)
        squared_B1hw = (predicted_BChw - target_BChw).square().mean(1, keepdim=True)
        return (squared_B1hw * mask_B1hw).sum((1, 2, 3)) / mask_B1hw.sum((1, 2, 3))

    with torch.no_grad(), attached.holding(reference):
        frozen_2B = error()
    gained_2B = frozen_2B - error()
    won_B, lost_B = gained_2B.chunk(2)
    return won_B - lost_B, float(frozen_2B.mean())


def beta_for(margins: Sequence[float], most: float) -> float:
    """Return the beta at which sigmoid(-beta margin) is `FACTOR` on average, `most` at most.

    A fixed beta saturates on few choices: once all margins are large nothing pulls any more. As
    long as margins are small the largest beta tells winners from losers best.

    >>> round(beta_for([1.0], 100.0), 3), beta_for([0.0], 100.0)
    (1.386, 100.0)
    """

    def factor(beta: float) -> float:
        return sum(1 / (1 + math.exp(min(beta * m, 700.0))) for m in margins) / len(margins)

    if not margins or factor(most) >= FACTOR:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if factor(middle) > FACTOR else (low, middle)
    return high
