"""The loop every stage of fitting the base runs in: workers on shared weights, EMA, saving, going
on another day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from customize.embedded.fitting.shared_state import FlatState, Worker
from customize.families.base import cpu_has_bfloat16, gpu_has_bfloat16

WARM_UP_STEPS = 200
SAVE_SECONDS = 60.0
SNAPSHOT_SAMPLES = 50_000
"""How often the averaged weights are kept beside the state, for a curve of quality over samples."""
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Budget:
    """How long a stage learns and how fast: `samples` in all, `batch` over all workers.

    The rate warms up, stays, and falls linearly to zero over the last `cooldown` share of the
    samples, so that a run can be lengthened before its cool-down without having wasted a step.
    """

    samples: int
    batch: int
    learning_rate: float
    cooldown: float = 0.2
    ema: float = 0.999

    @property
    def steps(self) -> int:
        """Count the optimizer steps."""
        return max(1, self.samples // self.batch)

    def rate_at(self, step: int) -> float:
        """Give the learning rate of a step."""
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        cool = min(1.0, (self.steps - step) / max(1.0, self.cooldown * self.steps))
        return self.learning_rate * warm * cool


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Compute in bfloat16 where the hardware multiplies it itself; elsewhere it is emulated, and a
    hundred times slower than float32.
    """
    helps = gpu_has_bfloat16() if device.type == "cuda" else cpu_has_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=helps)


LossOf = Callable[[int, int], Tensor]
"""(step, samples of this worker) -> loss; draws its own examples from (step, rank)."""


def fit_stage(
    name: str, module: nn.Module, loss_of: LossOf, budget: Budget, folder: Path, worker: Worker
) -> None:
    """Train `module` until the budget is spent and leave its EMA weights in it.

    The state lies in `folder/NAME.safetensors` and is saved every minute; the same call goes on
    from it.
    """
    state = FlatState(module, worker)
    path = folder / f"{name}.safetensors"
    if path.exists():
        state.load(path)
    save_at = time.monotonic() + SAVE_SECONDS
    for loss in _steps(state, loss_of, budget, worker, name):
        if worker.rank == 0 and (state.step == budget.steps or time.monotonic() > save_at):
            state.save(path)
            save_at = time.monotonic() + SAVE_SECONDS
            with (folder / f"{name}.csv").open("a", encoding="utf-8") as log:
                log.write(f"{state.step * budget.batch},{loss:.5f},{time.time():.0f}\n")
        if worker.rank == 0 and state.step * budget.batch % SNAPSHOT_SAMPLES < budget.batch:
            state.save_average(folder / f"{name}-{state.step * budget.batch}.safetensors")
    state.use_ema()


def _steps(
    state: FlatState, loss_of: LossOf, budget: Budget, worker: Worker, name: str
) -> Iterator[float]:
    """Take optimizer steps and yield the running loss after each."""
    smooth = 0.0
    bar = tqdm(
        total=budget.samples,
        initial=state.step * budget.batch,
        desc=name,
        unit="sample",
        disable=worker.rank > 0,
        mininterval=10,
    )
    while state.step < budget.steps:
        loss = loss_of(state.step, budget.batch // worker.count)
        loss.backward()
        state.update(budget.rate_at(state.step), CLIP_NORM, budget.ema)
        value = loss.item()
        smooth = value if not smooth else 0.98 * smooth + 0.02 * value
        bar.update(budget.batch)
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        yield smooth
    bar.close()
