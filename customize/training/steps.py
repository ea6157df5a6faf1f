"""The steps that lower the loss.

Logging, previews and saving belong to whoever loops over the steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from customize.adapters import Attached
from customize.errors import TrainingError
from customize.families import Family
from customize.training.batches import Batch, Shard, step_generator
from customize.training.loss import Goal, Losses, LossOf, loss
from customize.training.optimizer import Average, Pace, set_rates


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
    loss_of: LossOf | None = None,
) -> Iterator[Step]:
    """Yield after each step until `pace.steps` are done, the first `done` by an earlier run.

    `batches` go on where that run stopped, this process's share of each; `optimizer` comes from
    `accelerator.prepare` with its state restored. `loss_of` None is the usual loss of pairs. All
    that is random follows from (seed, step). Raises NonFiniteError before a step that would
    spoil the adapter.
    """
    find = loss_of or loss
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
                    losses = find(family, attached, next(batches), goal, generator, shard)
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


def _figures(accelerator: Any, seen: list[Losses], norm: Tensor) -> list[float]:
    """Bring a step's figures over at once: total, concept and preserved loss, gradient norm.

    The losses are means over all samples of all processes; the norm is the same everywhere. It is
    the one place where a step waits for its device: whoever looks a step later finds an adapter
    that is spoiled, and has to keep a copy of the one before. 8-bit optimizers wait more often:
    bitsandbytes synchronizes after every tensor.
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
