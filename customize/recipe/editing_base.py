"""The short YAML that says how a text-to-image model becomes an editing base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from customize.errors import Fault
from customize.recipe.contradictions import too_much_dropout
from customize.recipe.paths import base_name
from customize.recipe.read import read_recipe
from customize.recipe.sections import ConditioningDropout, ExistingPath, OutputFolder, Section

EXAMPLE = "recipes/base/from_stable_diffusion.yaml"


class EditingBaseRecipe(Section):
    """How an editing base is made of a text-to-image model; paths begin at the recipe's folder."""

    start: Annotated[str, BeforeValidator(base_name)] = Field(
        examples=["stable-diffusion-v1-5/stable-diffusion-v1-5"]
    )
    """The text-to-image model: a hub id, a diffusers folder, a single file, or `embedded`."""
    revision: str | None = None
    pairs: ExistingPath = Field(examples=["../../my_pairs"])
    output: OutputFolder = Path("runs/editing_base")
    samples: int = Field(default=1_280_000, ge=1)
    """Samples in all; the paper took 10,000 steps of 1,024."""
    batch: int = Field(default=16, ge=1)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0, lt=1)
    warmup: int = Field(default=500, ge=0)
    ema: float | None = Field(default=0.9999, gt=0, lt=1)
    dropout: ConditioningDropout = ConditioningDropout()
    resolution: int = Field(default=256, ge=32, multiple_of=8)
    flip: bool = True
    optimizer: Literal["adamw8bit", "adamw"] = "adamw8bit"
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    save_every: int = Field(default=500, ge=1)
    seed: int = 0

    @property
    def steps(self) -> int:
        """Count the optimizer steps."""
        return max(1, self.samples // (self.batch * self.accumulation))


def load_editing_base(path: Path) -> EditingBaseRecipe:
    """Read and check a recipe; raises RecipeError with every fault, its line and its cure."""
    return read_recipe(path, EditingBaseRecipe, EXAMPLE, _contradictions)


def _contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    return too_much_dropout(values, "dropout")
