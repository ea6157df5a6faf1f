"""The loop every stage of fitting the base runs in: workers on shared weights, EMA, saving, going
on another day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from customize.embedded.fitting.shared_state import FlatState, Worker
from customize.families.base import cpu_has_bfloat16, gpu_has_bfloat16
from customize.files.disk import naming_disk

WARM_UP_STEPS = 200
SAVE_SECONDS = 60.0
BAR_SECONDS = 10.0
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Budget:
    """How long a stage learns and how fast: `samples` in all, `batch` over all workers.

    The rate warms up, stays, and falls linearly to zero over the last `cooldown` share of the
    samples, so that a run can be lengthened before its cool-down without having wasted a step. With
    `minutes` the stage ends when they are over, and its rate falls in time. The averaged weights
    are kept beside the state after every `snapshot` samples, for a curve of quality over samples.
    """

    samples: int
    batch: int
    learning_rate: float
    cooldown: float = 0.2
    ema: float = 0.999
    minutes: float | None = None
    snapshot: int = 50_000

    @property
    def steps(self) -> int:
        """Count the optimizer steps."""
        return max(1, self.samples // self.batch)

    def rate_at(self, step: int, seconds: float = 0.0) -> float:
        """Give the learning rate of a step, begun after so many seconds of learning."""
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        cool = min(1.0, (self.steps - step) / max(1.0, self.cooldown * self.steps))
        if self.minutes is not None:
            whole = 60 * self.minutes
            cool = min(cool, max(0.0, whole - seconds) / max(1.0, self.cooldown * whole))
        return self.learning_rate * warm * cool

    def is_spent(self, step: int, seconds: float) -> bool:
        """Tell whether a stage that took so many steps and seconds has ended."""
        over = self.minutes is not None and seconds >= 60 * self.minutes
        return over or step >= self.steps


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where the hardware multiplies it itself; elsewhere it is emulated, and a
    hundred times slower than float32.
    """
    helps = gpu_has_bfloat16() if device.type == "cuda" else cpu_has_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=helps)


LossOf = Callable[[int, int], Tensor]
"""(step, samples of this worker) -> loss; draws its own examples from (step, rank)."""


def fit_stage(
    name: str,
    module: nn.Module,
    loss_of: LossOf,
    budget: Budget,
    folder: Path,
    worker: Worker,
    rates: Mapping[str, float] | None = None,
) -> None:
    """Train `module` until the budget is spent and leave its EMA weights in it.

    Weights whose names begin with a key of `rates` learn at that share of the budget's rate.

    The state lies in `folder/NAME.safetensors` and is saved every minute; the same call goes on
    from it.
    """
    state = FlatState(module, worker, rates)
    path = folder / f"{name}.safetensors"
    if path.exists():
        state.load(path)
    save_at = time.monotonic() + SAVE_SECONDS
    for loss in _steps(state, loss_of, budget, worker, name):
        samples, ended = state.step * budget.batch, budget.is_spent(state.step, state.seconds)
        if worker.rank == 0 and (ended or time.monotonic() > save_at):
            state.save(path)
            save_at = time.monotonic() + SAVE_SECONDS
            table = folder / f"{name}.csv"
            with naming_disk(table), table.open("a", encoding="utf-8") as log:
                log.write(f"{samples},{loss.item():.5f},{time.time():.0f}\n")
        if worker.rank == 0 and samples % budget.snapshot < budget.batch:
            state.save_average(folder / f"{name}-{samples}.safetensors")
    state.use_ema()


def _steps(
    state: FlatState, loss_of: LossOf, budget: Budget, worker: Worker, name: str
) -> Iterator[Tensor]:
    """Take optimizer steps and yield the running loss after each; a GPU is not waited for."""
    smooth, began = None, time.monotonic() - state.seconds
    bar = tqdm(
        total=budget.samples,
        initial=state.step * budget.batch,
        desc=name,
        unit="sample",
        disable=worker.rank > 0,
        mininterval=BAR_SECONDS,
    )
    shown_at = 0.0
    while not budget.is_spent(state.step, state.seconds):
        loss = loss_of(state.step, budget.batch // worker.count)
        loss.backward()
        state.update(budget.rate_at(state.step, state.seconds), CLIP_NORM, budget.ema)
        state.seconds = worker.agreed(time.monotonic() - began)
        smooth = loss.detach() if smooth is None else smooth.lerp(loss.detach(), 0.02)
        if time.monotonic() - shown_at > BAR_SECONDS:
            bar.set_postfix(loss=f"{smooth.item():.4f}", refresh=False)
            shown_at = time.monotonic()
        bar.update(budget.batch)
        yield smooth
    bar.close()
