"""The loss, as the papers write it, and the steps that lower it.

Logging, previews and saving belong to whoever loops over the steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from customize.adapters import Attached
from customize.batches import Batch, Shard, step_generator
from customize.errors import TrainingError
from customize.families import Dropout, Family
from customize.optimizing import Average, Pace, set_rates
from customize.shapes import Conditions


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


@dataclass(frozen=True)
class Step:
    """One optimizer step done, `step` counting from 1: what there is to log."""

    step: int
    loss: float
    concept_loss: float
    preserved_loss: float
    gradient_norm: float
    learning_rate: float


class NonFiniteError(TrainingError):
    """Loss or gradient stopped being a number; the adapter is as it was before that step."""


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
    The batch's first samples are preserved: they start from the unedited source and get another
    instruction, without concept words (learning without forgetting, arXiv 1606.09282, sec. 3).
    `batch` is `shard`'s part of the whole batch for which `generator` draws.
    """
    objective, device = family.objective, batch.mean_BChw.device
    whole = len(batch.mean_BChw) * shard.processes
    shape = (whole, *batch.mean_BChw.shape[1:])
    kept_of_whole = preserved_count(whole, goal, generator)
    kept = shard.count(kept_of_whole)
    mean_BChw = torch.cat([batch.unedited_mean_BChw[:kept], batch.mean_BChw[kept:]])
    std_BChw = torch.cat([batch.unedited_std_BChw[:kept], batch.std_BChw[kept:]])
    clean_BChw = mean_BChw + std_BChw * shard.of(torch.randn(shape, generator=generator)).to(device)
    noise_BChw = shard.of(torch.randn(shape, generator=generator)).to(device)
    level_B = shard.of(objective.sample_levels(whole, generator)).to(device)
    uniform_B = shard.of(torch.rand(whole, generator=generator)).to(device)

    noisy_BChw = objective.corrupt(clean_BChw, noise_BChw, level_B)
    if kept_of_whole:
        count = len(next(iter(goal.other_texts.values())))
        chosen = shard.of(torch.randint(count, (kept_of_whole,), generator=generator))
        conditions = _with_other_texts(batch.conditions, goal.other_texts, chosen)
    else:
        conditions = batch.conditions
    conditions = family.drop(conditions, goal.empty_text, uniform_B, goal.dropout)
    target_BChw = objective.target(clean_BChw, noise_BChw, level_B)
    if kept:
        with torch.no_grad(), attached.switched_off():
            first = {key: value[:kept] for key, value in conditions.items()}
            frozen_BChw = family.predict(noisy_BChw[:kept], level_B[:kept], first)
        target_BChw = torch.cat([frozen_BChw, target_BChw[kept:]])
    predicted_BChw = family.predict(noisy_BChw, level_B, conditions)

    error_B = (predicted_BChw - target_BChw).square().flatten(1).mean(1)
    preserved_B = torch.full((kept,), goal.preserved_weight, device=device)
    weight_B = torch.cat([preserved_B, batch.weight_B[kept:]])
    if goal.min_snr is not None:
        weight_B = weight_B * objective.min_snr_weight(level_B, goal.min_snr)
    return Losses((weight_B * error_B).mean(), error_B.detach(), kept)


def train_steps(
    family: Family,
    attached: Attached,
    batches: Iterator[Batch],
    goal: Goal,
    optimizer: Any,
    pace: Pace,
    accelerator: Any,
    *,
    seed: int,
    done: int = 0,
    average: Average | None = None,
) -> Iterator[Step]:
    """Yield after each step until `pace.steps` are done, the first `done` by an earlier run.

    `batches` go on where that run stopped, this process's share of each; `optimizer` comes from
    `accelerator.prepare` with its state restored. All that is random follows from (seed, step).
    Raises NonFiniteError before a step that would spoil the adapter.
    """
    parameters = [*attached.adapter_parameters(), *attached.word_parameters()]
    modules = (family.denoiser, *family.text_encoders.values())
    wrapped: list[Any] = [module for module in modules if hasattr(module, "no_sync")]
    shard = Shard(accelerator.process_index, accelerator.num_processes)
    for step in range(done, pace.steps):
        generator = step_generator(seed, step)
        rate = set_rates(optimizer, pace.factor(step))
        seen: list[Losses] = []
        for part in range(pace.accumulation):
            with ExitStack() as unsynchronized:
                if part < pace.accumulation - 1:
                    for module in wrapped:
                        unsynchronized.enter_context(module.no_sync())
                with accelerator.autocast():
                    losses = loss(family, attached, next(batches), goal, generator, shard)
                accelerator.backward(losses.total / pace.accumulation)
            seen.append(losses)
        limit = math.inf if pace.clip_norm is None else pace.clip_norm
        norm = torch.as_tensor(accelerator.clip_grad_norm_(parameters, limit))
        figures = _figures(accelerator, seen, norm)
        _check_finite(figures, step, has_scaler=accelerator.scaler is not None)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update(attached, step)
        yield Step(step + 1, *figures, learning_rate=rate)


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
    other = {key: value[chosen_K.to(value.device)] for key, value in texts.items()}
    return {
        key: torch.cat([other[key], value[kept:]]) if key in other else value
        for key, value in conditions.items()
    }


def _figures(accelerator: Any, seen: list[Losses], norm: Tensor) -> list[float]:
    """Bring a step's figures over at once: total, concept and preserved loss, gradient norm.

    The losses are means over all samples of all processes; the norm is the same everywhere.
    """
    total = torch.stack([losses.total.detach() for losses in seen]).mean()
    concept = torch.cat([losses.error_B[losses.kept :] for losses in seen])
    preserved = torch.cat([losses.error_B[: losses.kept] for losses in seen])
    counts = [torch.full_like(total, len(errors)) for errors in (concept, preserved)]
    sums = torch.stack([total, concept.sum(), preserved.sum(), *counts, norm.detach().to(total)])
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, reduction="sum")
    total, concept, preserved, learned, kept, norm = sums
    shared = accelerator.num_processes
    return torch.stack(
        [total / shared, concept / learned, preserved / kept, norm / shared]
    ).tolist()


def _check_finite(figures: list[float], step: int, *, has_scaler: bool) -> None:
    """Stop before the optimizer takes in what is no number; fp16's scaler skips such gradients."""
    total, *_, norm = figures
    if math.isfinite(total) and (has_scaler or math.isfinite(norm)):
        return
    what, value = ("gradient", norm) if math.isfinite(total) else ("loss", total)
    raise NonFiniteError(
        f"step {step + 1}: the {what} became {value}; expected a finite number; lower "
        "train.learning_rate, or set train.precision to 'no' if it is bf16 or fp16"
    )
