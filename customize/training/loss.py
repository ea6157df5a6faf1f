"""The loss, as the papers write it, and what is to be learned from a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from customize.adapters import Attached
from customize.families import Dropout, Family
from customize.families.objective import Objective
from customize.shapes import Conditions
from customize.training.batches import Batch, Shard, sent


@dataclass(frozen=True)
class Goal:
    """What is to be learned from a batch besides its pairs.

    `empty_text` is the encoder's text of no instruction, without a batch axis; `other_texts` those
    of the instructions to preserve, stacked (N, ...); both on the training device.
    `preserved_share` of each batch, on average, is held to the base's own prediction for one of
    them, with `preserved_weight` in the loss.
    """

    empty_text: Mapping[str, Tensor]
    other_texts: Mapping[str, Tensor] = field(default_factory=dict)
    dropout: Dropout = field(default_factory=Dropout)
    min_snr: float | None = None
    preserved_share: float = 0.0
    preserved_weight: float = 1.0


class LossOf(Protocol):
    """A batch's loss: `loss` below, or one that another kind of run puts in its place."""

    def __call__(
        self,
        family: Family,
        attached: Attached,
        batch: Batch,
        goal: Goal,
        generator: torch.Generator,
        shard: Shard = ...,
    ) -> Losses:
        """Return the loss to descend; all that is random comes from `generator`."""
        ...


@dataclass(frozen=True)
class Losses:
    """The loss to descend and, for the log, each sample's error, the `kept` preserved ones first.

    `total` is a process's own mean over the batch; means of new and preserved edits are NaN where
    there are none.
    """

    total: Tensor
    error_B: Tensor
    kept: int

    @property
    def concept(self) -> Tensor:
        """The mean error of what is to be learned."""
        return self.error_B[self.kept :].mean()

    @property
    def preserved(self) -> Tensor:
        """The mean distance from the base's own predictions."""
        return self.error_B[: self.kept].mean()


def loss(
    family: Family,
    attached: Attached,
    batch: Batch,
    goal: Goal,
    generator: torch.Generator,
    shard: Shard = Shard(),  # noqa: B008 - frozen
) -> Losses:
    """Ask the denoiser for the target; for preserved samples that is what the base itself says.

    InstructPix2Pix (arXiv 2211.09800, sec. 3.2) with min-SNR weights (arXiv 2303.09556, sec. 3.4).
    The batch's first samples are preserved (learning without forgetting, arXiv 1606.09282, sec. 3):
    they get another instruction, without concept words, and start from the edit that the base
    guesses for it, as its sampling does. From the unedited source, where sampling never comes, an
    adapter may unlearn whole kinds of edits that no sample shows.
    `batch` is `shard`'s part of the whole batch for which `generator` draws.
    """
    objective, device = family.objective, batch.mean_BChw.device
    whole = len(batch.mean_BChw) * shard.processes
    shape = (whole, *batch.mean_BChw.shape[1:])
    kept_of_whole = preserved_count(whole, goal, generator)
    kept = shard.count(kept_of_whole)
    mean_BChw = torch.cat([batch.unedited_mean_BChw[:kept], batch.mean_BChw[kept:]])
    std_BChw = torch.cat([batch.unedited_std_BChw[:kept], batch.std_BChw[kept:]])

    def own(drawn: Tensor) -> Tensor:
        """Take this process's share to the device."""
        return sent(shard.of(drawn), device)

    clean_BChw = mean_BChw + std_BChw * own(torch.randn(shape, generator=generator))
    noise_BChw = own(torch.randn(shape, generator=generator))
    level_B = own(objective.sample_levels(shape, generator))
    uniform_B = own(torch.rand(whole, generator=generator))

    noisy_BChw = objective.corrupt(clean_BChw, noise_BChw, level_B)
    if kept_of_whole:
        count = len(next(iter(goal.other_texts.values())))
        chosen = own(torch.randint(count, (kept_of_whole,), generator=generator))
        conditions = _with_other_texts(batch.conditions, goal.other_texts, chosen)
    else:
        conditions = batch.conditions
    conditions = family.drop(conditions, goal.empty_text, uniform_B, goal.dropout)
    target_BChw = objective.target(clean_BChw, noise_BChw, level_B)
    if kept:
        with torch.no_grad(), attached.switched_off():
            first = {key: value[:kept] for key, value in conditions.items()}
            guess_BChw = _guessed_edit(family, clean_BChw[:kept], noise_BChw[:kept], first)
            begun_BChw = objective.corrupt(guess_BChw, noise_BChw[:kept], level_B[:kept])
            frozen_BChw = family.predict(begun_BChw, level_B[:kept], first)
        noisy_BChw = torch.cat([begun_BChw, noisy_BChw[kept:]])
        target_BChw = torch.cat([frozen_BChw, target_BChw[kept:]])
    predicted_BChw = family.predict(noisy_BChw, level_B, conditions)

    error_B = (predicted_BChw - target_BChw).square().flatten(1).mean(1)
    preserved_B = torch.full((kept,), goal.preserved_weight, device=device)
    weight_B = torch.cat([preserved_B, batch.weight_B[kept:]])
    if goal.min_snr is not None:
        assert isinstance(objective, Objective), "recipes for flow matching have no min_snr"
        weight_B = weight_B * objective.min_snr_weight(level_B, goal.min_snr)
    return Losses((weight_B * error_B).mean(), error_B.detach(), kept)


def _guessed_edit(
    family: Family, source_BChw: Tensor, noise_BChw: Tensor, conditions: Conditions
) -> Tensor:
    """Return what the denoiser takes the edited latents to be, in one step from much noise."""
    objective = family.objective
    level_B = objective.guess_levels(len(source_BChw)).to(source_BChw.device)
    noisy_BChw = objective.corrupt(source_BChw, noise_BChw, level_B)
    predicted_BChw = family.predict(noisy_BChw, level_B, conditions)
    return objective.clean(noisy_BChw, predicted_BChw, level_B).to(source_BChw)


def preserved_count(count: int, goal: Goal, generator: torch.Generator) -> int:
    """Round the preserved share of a batch up or down at random, so that it holds on average."""
    uniform = float(torch.rand((), generator=generator))
    if not goal.other_texts:
        return 0
    return min(count, math.floor(goal.preserved_share * count + uniform))


def _with_other_texts(
    conditions: Conditions, texts: Mapping[str, Tensor], chosen_K: Tensor
) -> Conditions:
    """Give the first samples, as many as are `chosen_K`, those of the other `texts` (N, ...)."""
    kept = len(chosen_K)
    other = {key: value[chosen_K] for key, value in texts.items()}
    return {
        key: torch.cat([other[key], value[kept:]]) if key in other else value
        for key, value in conditions.items()
    }
