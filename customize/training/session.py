"""A run in progress, of a concept or of a base: what it holds, its checkpoint and the way back."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from customize.adapters import Attached
from customize.errors import TrainingError
from customize.families import Family
from customize.training.batches import Sample, Shard, batches
from customize.training.best_preview import Best, restored
from customize.training.checkpoint import (
    Checkpoint,
    changed,
    misfit,
    read_checkpoint,
    save_checkpoint,
)
from customize.training.loss import Goal, LossOf
from customize.training.optimizer import Average, Pace
from customize.training.optimizer_state import optimizer_state, restore_optimizer
from customize.training.steps import Step, train_steps


@dataclass(frozen=True)
class Resuming:
    """When a stopped run goes on: as long as the facts that are `shaping` it are what they were.

    Its user is told to keep the `same` things, or how to begin `anew`; facts named in `length` may
    change where a run is trained further.
    """

    shaping: Mapping[str, Any]
    same: str
    anew: str
    length: Collection[str] = ()


class Beside(Protocol):
    """What a run of another kind knows besides, and takes along in its checkpoint."""

    def known(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the adapter that it may come back to, none for none, and JSON values."""
        ...

    def know_again(
        self, session: Session, best: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Take up what `known` returned, the session being where it was then."""
        ...


@dataclass
class Session:
    """What learns, what it learns from, and what it has come to so far.

    `live` is the family unwrapped, for previews and files; `batch` this process's samples;
    `history` the figures of every step; `best` the step that did best in previews; `planned` the
    steps that the run was to have when it was last saved. A run of another kind sets its own
    `loss_of`, in `facts` what shapes it besides, and `beside` to what it knows besides.
    """

    accelerator: Any
    family: Family
    live: Family
    attached: Attached
    optimizer: Any
    average: Average | None
    samples: list[Sample]
    goal: Goal
    pace: Pace
    batch: int
    seed: int
    resuming: Resuming
    done: int = 0
    seconds: float = 0.0
    best: Best | None = None
    planned: int | None = None
    history: list[tuple[float, float, float]] = field(default_factory=list)
    loss_of: LossOf | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    beside: Beside | None = None

    def steps(self) -> Iterator[Step]:
        """Train from where the session is; it keeps count as the steps come."""
        accelerator = self.accelerator
        drawn = batches(
            self.samples,
            self.batch,
            seed=self.seed,
            device=accelerator.device,
            first=self.done * self.pace.accumulation,
            shard=Shard(accelerator.process_index, accelerator.num_processes),
        )
        last = time.monotonic()
        for step in train_steps(
            self.family,
            self.attached,
            drawn,
            self.goal,
            self.optimizer,
            self.pace,
            accelerator,
            seed=self.seed,
            done=self.done,
            average=self.average,
            loss_of=self.loss_of,
        ):
            self.done = step.step
            self.history.append((step.loss, step.concept_loss, step.preserved_loss))
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            yield step
            last = time.monotonic()  # previews and saving are not training

    def learned(self) -> dict[str, Tensor]:
        """Copy what the file is to hold: the average where one is kept."""
        if self.average is None:
            return self.attached.state()
        return {name: tensor.cpu().clone() for name, tensor in self.average.tensors.items()}

    @contextmanager
    def with_learned(self) -> Iterator[None]:
        """Have the family predict with what `learned` holds while inside."""
        if self.average is None:
            yield
            return
        with self.attached.holding(self.average.tensors):
            yield

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        scaler = self.accelerator.scaler
        best, values = self.beside.known() if self.beside else ({}, {})
        checkpoint = Checkpoint(
            step=self.done,
            adapter=self.attached.state(),
            optimizer=optimizer_state(self.optimizer),
            history_SF=torch.tensor(self.history, dtype=torch.float64).reshape(-1, 3),
            average=self.average.tensors if self.average else {},
            best=best,
            shaping={**self.resuming.shaping, **self.facts},
            numbers={
                "seconds": self.seconds,
                "best": self.best and asdict(self.best),
                "planned": self.pace.steps,
                "beside": values,
                "scaler": scaler.state_dict() if scaler is not None else None,
            },
        )
        save_checkpoint(path, checkpoint)

    def restore(self, path: Path, *, further: bool = False) -> None:
        """Go back to the checkpoint; the number of steps may have changed to train `further`.

        Raises TrainingError, and changes nothing, when it is damaged or of another run, or when
        what shapes training has changed since.
        """
        saved = read_checkpoint(path)
        self._check(path, saved, further)
        self.attached.load(saved.adapter)
        restore_optimizer(self.optimizer, saved.optimizer)
        if self.average is not None:
            self.average.load(saved.average)
        if self.accelerator.scaler is not None and saved.numbers["scaler"]:
            self.accelerator.scaler.load_state_dict(saved.numbers["scaler"])
        self.done = saved.step
        self.history = [(a, b, c) for a, b, c in saved.history_SF.tolist()]
        self.seconds = saved.numbers.get("seconds", 0.0)
        self.best = restored(saved.numbers.get("best"))
        self.planned = saved.numbers.get("planned")
        if self.beside is not None and (values := saved.numbers.get("beside")):
            self.beside.know_again(self, saved.best, values)

    def _check(self, path: Path, saved: Checkpoint, further: bool) -> None:
        """Raise TrainingError for a checkpoint from which this run cannot go on."""
        rules = self.resuming
        free = rules.length if further else ()
        then = {place: value for place, value in saved.shaping.items() if place not in free}
        now = {**rules.shaping, **self.facts}
        now = {place: value for place, value in now.items() if place not in free}
        if differences := changed(then, now):
            raise TrainingError(
                f"{path}: step {saved.step} of this run was trained otherwise "
                f"({'; '.join(differences)}); expected the same {rules.same}; set them back to go "
                f"on, choose another output, or {rules.anew}"
            )
        averaged = self.average is not None
        if found := misfit(saved, self.attached.state(), self.optimizer, averaged=averaged):
            raise TrainingError(
                f"{path}: {found}; expected the checkpoint of this very run; "
                f"choose another output, or {rules.anew}"
            )
        if saved.step > self.pace.steps or (further and saved.step == self.pace.steps):
            raise TrainingError(
                f"{path}: {saved.step} steps are done, and the recipe asks for "
                f"{self.pace.steps}; expected more to train further; raise "
                f"{' or '.join(rules.length)}"
            )
