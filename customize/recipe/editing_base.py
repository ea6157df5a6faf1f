"""The short YAML that says how a text-to-image model becomes an editing base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from customize.errors import Fault, RecipeError
from customize.recipe.paths import base_name, existing_path

EXAMPLE = "recipes/base/from_stable_diffusion.yaml"


class Section(BaseModel):
    """A part of the recipe; unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hidden(Section):
    """Shares of samples that learn without a condition, for guidance."""

    text: float = Field(default=0.05, ge=0, le=1)
    image: float = Field(default=0.05, ge=0, le=1)
    both: float = Field(default=0.05, ge=0, le=1)


class FittingRecipe(Section):
    """How an editing base is made of a text-to-image model; paths begin at the recipe's folder."""

    start: Annotated[str, BeforeValidator(base_name)]
    """The text-to-image model: a hub id, a diffusers folder or a single file."""
    revision: str | None = None
    pairs: Annotated[Path, BeforeValidator(existing_path)]
    output: Path = Path("runs/editing_base")
    samples: int = Field(default=1_280_000, ge=1)
    """Samples in all; the paper took 10,000 steps of 1,024."""
    batch: int = Field(default=16, ge=1)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0, lt=1)
    warmup: int = Field(default=500, ge=0)
    ema: float | None = Field(default=0.9999, gt=0, lt=1)
    dropout: Hidden = Hidden()
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


def is_fitting_recipe(path: Path) -> bool:
    """Tell this kind of recipe from that of the embedded base: it names a model to start from."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and "start" in values


def load_fitting_recipe(path: Path) -> FittingRecipe:
    """Read and check a recipe; raises RecipeError with every fault, its place and its cure."""
    title, folder = f"recipe {path}", path.resolve().parent
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        recipe = FittingRecipe.model_validate(values, context={"folder": folder})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        cure = f"write it as {EXAMPLE}"
        raise RecipeError(title, [Fault(str(path), str(error), cure)]) from None
    except ValidationError as error:
        faults = [
            Fault(".".join(map(str, fault["loc"])) or "recipe", fault["msg"], f"see {EXAMPLE}")
            for fault in error.errors()
        ]
        raise RecipeError(title, faults) from None
    hidden = recipe.dropout
    if hidden.text + hidden.image + hidden.both > 1:
        fault = Fault("dropout", "its shares are more than 1 together", "lower them")
        raise RecipeError(title, [fault])
    return recipe
