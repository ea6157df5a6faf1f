"""Everything a run holds in memory, and its way into a checkpoint and back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from customize.adapters import Attached
from customize.errors import TrainingError
from customize.families import Family
from customize.training.batches import Batch, Sample, Shard, batches
from customize.training.loss import Goal, LossOf
from customize.training.optimizer import Average, Pace
from customize.training.plan import LENGTH, Plan, shaping_facts
from customize.training.resume import restore_run, save_run
from customize.training.run_folder import RunFolder
from customize.training.steps import Step, train_steps


@dataclass
class Session:
    """A run in progress: what learns, what it learns from, and what it has come to so far.

    `live` is the family unwrapped, for previews; `history` the figures of every step; `best` the
    best score of a preview; `planned` the steps that the run was to have when it was last saved. A
    run of another kind sets its own `loss_of`, and in `facts` what shapes it besides the plan.
    """

    plan: Plan
    accelerator: Any
    family: Family
    live: Family
    attached: Attached
    optimizer: Any
    average: Average | None
    samples: list[Sample]
    goal: Goal
    pace: Pace
    done: int = 0
    seconds: float = 0.0
    best: float | None = None
    planned: int | None = None
    history: list[tuple[float, float, float]] = field(default_factory=list)
    loss_of: LossOf | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        """Train from where the session is; it keeps count as the steps come."""
        train, accelerator = self.plan.recipe.train, self.accelerator
        drawn: Iterator[Batch] = batches(
            self.samples,
            train.batch,
            seed=train.seed,
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
            seed=train.seed,
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
        """Copy what the adapter file is to hold: the average where one is kept."""
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

    def save(self, folder: RunFolder) -> None:
        """Write the checkpoint."""
        numbers = {"seconds": self.seconds, "best": self.best, "planned": self.pace.steps}
        save_run(folder.checkpoint, self, self._shaping(), numbers)

    def restore(self, folder: RunFolder, *, further: bool = False) -> None:
        """Go back to the checkpoint; the number of steps may have changed to train `further`.

        Raises TrainingError when it is damaged, or when what shapes training has changed since.
        """
        numbers = restore_run(
            folder.checkpoint,
            self,
            self._shaping(),
            same="recipe and pairs",
            anew="begin anew with --overwrite (or pass --continue where the steps alone differ)",
            free=LENGTH if further else (),
        )
        self.seconds, self.best = numbers["seconds"], numbers["best"]
        self.planned = numbers["planned"]
        if self.done > self.pace.steps or (further and self.done == self.pace.steps):
            raise TrainingError(
                f"{folder.checkpoint}: {self.done} steps are done, and the recipe asks for "
                f"{self.pace.steps}; expected more to train further; raise train.steps or epochs"
            )

    def _shaping(self) -> dict[str, Any]:
        """List what shapes training; the number of processes does so by the whole batch alone."""
        facts = {**shaping_facts(self.plan), **self.facts}
        return {**facts, "train.batch": facts["train.batch"] * self.accelerator.num_processes}
