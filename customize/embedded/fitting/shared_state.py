"""Weights, moments and averages of a stage as flat vectors that worker processes share.

Two single-threaded processes use two cores better than one process with two threads. They share one
vector of weights in memory: each adds its gradient in its own row, and each takes the AdamW step
(Loshchilov and Hutter 2019) for its own slice of the vector, so that nothing is ever copied between
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier as ProcessBarrier
from pathlib import Path
from threading import Barrier
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from customize.errors import CustomizeError
from customize.files import replacing
from customize.files.tensors import (
    DamagedError,
    read_tensors,
    save_tensors,
    write_safetensors,
)

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
_KEY = "state of a stage"
VECTORS = ("weights", "ema", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Worker:
    """One of `count` equal processes that share every batch; 0 is the one that saves and prints.

    `pool`, `norms` and `clock` are memory all of them see: 4 + `count` rows as long as the largest
    stage, one number each, and one for all. None for a lone worker.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    pool: Tensor | None = None
    norms: Tensor | None = None
    barrier: ProcessBarrier | Barrier | None = None
    clock: Tensor | None = None

    def wait(self) -> None:
        """Wait until every worker is here."""
        if self.barrier is not None:
            self.barrier.wait()

    def agreed(self, seconds: float) -> float:
        """Give every worker the first one's time, so that all of them end at the same step."""
        if self.clock is None:
            return seconds
        if self.rank == 0:
            self.clock[0] = seconds
        self.wait()
        return float(self.clock[0])


class FlatState:
    """A module whose trainable weights are views into one vector, with AdamW moments and an EMA
    beside it.
    """

    def __init__(
        self, module: nn.Module, worker: Worker, rates: Mapping[str, float] | None = None
    ) -> None:
        """Move the module's trainable weights into the vectors, where it learns from now on.

        Weights whose names begin with a key of `rates` learn at that share of the rate.
        """
        self.worker, self.step, self.seconds = worker, 0, 0.0
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.layout = hashlib.sha256(str([(n, tuple(p.shape)) for n, p in named]).encode())
        size = sum(parameter.numel() for _, parameter in named)
        rows = worker.pool
        if rows is None:
            rows = torch.zeros(len(VECTORS) + 1, size, device=worker.device)
        self.vectors = dict(zip(VECTORS, rows[:, :size], strict=False))
        self.gradients, self.norms = rows[len(VECTORS) :, :size], worker.norms
        self.parameters = [parameter for _, parameter in named]
        self._bind()
        share = -(-size // worker.count)
        self.slice = slice(worker.rank * share, min(size, (worker.rank + 1) * share))
        self.stretches = _stretches(named, rates or {}, self.slice)
        self.mine = [nn.Parameter(self.vectors["weights"][s]) for s, _ in self.stretches]
        groups = [{"params": [part]} for part in self.mine]
        self.optimizer = torch.optim.AdamW(
            groups, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._bind_optimizer()

    def _bind(self) -> None:
        """Make every parameter and its gradient a view into the vectors; the first worker's weights
        count.
        """
        start, first = 0, self.worker.rank == 0
        self.worker.wait()
        if first:
            for vector in (*self.vectors.values(), *self.gradients):
                vector.zero_()
        for parameter in self.parameters:
            window = slice(start, start + parameter.numel())
            start = window.stop
            weights = self.vectors["weights"][window].view_as(parameter)
            if first:
                weights.copy_(parameter.detach())
            parameter.data = weights
            parameter.grad = self.gradients[self.worker.rank, window].view_as(parameter)
        if first:
            self.vectors["ema"].copy_(self.vectors["weights"])
        self.worker.wait()

    def _bind_optimizer(self) -> None:
        for part, (stretch, _) in zip(self.mine, self.stretches, strict=True):
            self.optimizer.state[part] = {
                "step": torch.tensor(float(self.step), device=self.worker.device),
                "exp_avg": self.vectors["exp_avg"][stretch],
                "exp_avg_sq": self.vectors["exp_avg_sq"][stretch],
            }

    def update(self, rate: float, clip_norm: float, ema: float) -> None:
        """Average the workers' gradients, clip them to `clip_norm`, step this worker's slice."""
        self.worker.wait()
        gradient = self.gradients[:, self.slice].mean(dim=0)
        norms = self.norms if self.norms is not None else torch.zeros(1, device=gradient.device)
        norms[self.worker.rank] = gradient.norm()
        self.worker.wait()
        gradient *= (clip_norm / (norms.norm() + 1e-6)).clamp(max=1.0)
        self.gradients[self.worker.rank].zero_()
        groups = self.optimizer.param_groups
        for part, group, (stretch, share) in zip(self.mine, groups, self.stretches, strict=True):
            part.grad = gradient[stretch.start - self.slice.start :][: part.numel()]
            group["lr"] = share * rate
        self.optimizer.step()
        self.step += 1
        decay = min(ema, (1 + self.step) / (10 + self.step))
        self.vectors["ema"][self.slice].lerp_(self.vectors["weights"][self.slice], 1 - decay)
        self.worker.wait()

    def use_ema(self) -> None:
        """Give the module its averaged weights, in its own memory: the pool is for the next."""
        self.worker.wait()
        start = 0
        for parameter in self.parameters:
            window = slice(start, start + parameter.numel())
            start = window.stop
            parameter.data = self.vectors["ema"][window].view_as(parameter).clone()
            parameter.grad = None
        self.worker.wait()

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, renamed into place."""
        vectors = {name: vector.cpu().clone() for name, vector in self.vectors.items()}
        facts = {"step": self.step, "layout": self.layout.hexdigest(), "seconds": self.seconds}
        save_tensors(path, vectors, facts, key=_KEY, flush=True)

    def save_average(self, path: Path) -> None:
        """Write the averaged weights alone, in half precision."""
        facts = {"step": str(self.step), "layout": self.layout.hexdigest()}
        with replacing(path) as temporary:
            write_safetensors(temporary, {"ema": self.vectors["ema"].half()}, facts)

    def load(self, path: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CustomizeError: the file is damaged, or was written for a model of another shape.
        """
        tensors, facts = _read_state(path)
        if facts["layout"] != self.layout.hexdigest():
            raise CustomizeError(
                f"{path} holds the state of a model of another shape; "
                "choose another output folder or delete it"
            )
        self.worker.wait()
        if self.worker.rank == 0:
            for name in VECTORS:
                self.vectors[name].copy_(tensors[name])
        self.step, self.seconds = int(facts["step"]), float(facts.get("seconds", 0.0))
        self._bind_optimizer()
        self.worker.wait()


def _stretches(
    named: Sequence[tuple[str, nn.Parameter]], rates: Mapping[str, float], mine: slice
) -> list[tuple[slice, float]]:
    """Cut a worker's slice where the share of the learning rate changes."""
    stretches: list[tuple[slice, float]] = []
    start = 0
    for name, parameter in named:
        share = next((share for prefix, share in rates.items() if name.startswith(prefix)), 1.0)
        first, last = max(start, mine.start), min(start + parameter.numel(), mine.stop)
        start += parameter.numel()
        if first >= last:
            continue
        if stretches and stretches[-1][1] == share:
            first = stretches.pop()[0].start
        stretches.append((slice(first, last), share))
    return stretches


def _read_state(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """Read a state; one that was begun before states had checksums is taken as it is."""
    try:
        return read_tensors(path, key=_KEY)
    except DamagedError as error:
        found = error
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if "layout" in facts and "sha256" not in facts:
                return {name: file.get_tensor(name) for name in VECTORS}, facts
    except (OSError, SafetensorError):
        pass
    raise CustomizeError(
        f"{path}: it is damaged ({found}); expected the state as it was written; copy it back from "
        "where it is whole, or delete it to fit this stage anew"
    ) from None
