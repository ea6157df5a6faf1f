"""Everything a fit of an editing base holds in memory, and its way into a checkpoint and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from customize.adapters import Attached
from customize.families import Family
from customize.families.base import Base
from customize.recipe.editing_base import EditingBaseRecipe
from customize.training.batches import Sample, batches
from customize.training.loss import Goal
from customize.training.optimizer import Average, Pace
from customize.training.resume import restore_run, save_run
from customize.training.steps import Step, train_steps

UNSHAPING = {"output", "start", "revision", "pairs", "save_every", "gradient_checkpointing"}
"""Fields that may change between the parts of a run; the start's and the pairs' content may not."""


@dataclass
class Fit:
    """A fit in progress."""

    recipe: EditingBaseRecipe
    base: Base
    accelerator: Any
    family: Family
    attached: Attached
    optimizer: Any
    average: Average | None
    samples: list[Sample]
    goal: Goal
    shaping: dict[str, Any]
    done: int = 0
    history: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """Where a stopped fit goes on from."""
        return self.recipe.output / "checkpoint.safetensors"

    def steps(self) -> Iterator[Step]:
        """Learn from where the fit is; it keeps count as the steps come."""
        recipe, device = self.recipe, self.accelerator.device
        pace = Pace(recipe.steps, recipe.accumulation, clip_norm=1.0, warmup=recipe.warmup)
        first = self.done * recipe.accumulation
        drawn = batches(self.samples, recipe.batch, seed=recipe.seed, device=device, first=first)
        for step in train_steps(
            self.family,
            self.attached,
            drawn,
            self.goal,
            self.optimizer,
            pace,
            self.accelerator,
            seed=recipe.seed,
            done=self.done,
            average=self.average,
        ):
            self.done = step.step
            self.history.append((step.loss, step.concept_loss, step.preserved_loss))
            yield step

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        save_run(self.checkpoint, self, self.shaping)

    def restore(self) -> None:
        """Go back to the checkpoint; raises TrainingError when what shapes the fit has changed."""
        restore_run(
            self.checkpoint,
            self,
            self.shaping,
            same="recipe, start and pairs",
            anew="delete the file to begin anew",
        )
