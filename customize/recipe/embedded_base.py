"""The short YAML that says how long each stage of fitting the base learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from customize.errors import Fault, RecipeError


class Stage(BaseModel):
    """One stage: `samples` in all (0 skips it), `batch` over all workers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(ge=0)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0, lt=1)
    cooldown: float = Field(default=0.2, ge=0, le=1)


class AutoencoderStage(Stage):
    """The autoencoder's stage; `encoder` lets the encoder of a base to go on from learn as well."""

    encoder: bool = False


class FitRecipe(BaseModel):
    """How the embedded base is fitted, on pictures of `size` pixels a side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 1
    workers: int = Field(default=2, ge=1, le=64)
    output: Path = Path("runs/base")
    pool: int = Field(default=8192, ge=1)
    size: Literal[64, 128] = 64
    autoencoder: AutoencoderStage
    clip: Stage
    editor: Stage


def load_fit_recipe(path: Path) -> FitRecipe:
    """Read and check a fit recipe.

    Raises:
        RecipeError: with every fault, its place and its cure.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return FitRecipe.model_validate(values)
    except OSError as error:
        cure = "give the path of a recipe such as recipes/base/embedded.yaml"
        raise RecipeError(str(path), [Fault(str(path), str(error.strerror), cure)]) from error
    except yaml.YAMLError as error:
        raise RecipeError(str(path), [Fault(str(path), str(error), "correct the YAML")]) from error
    except ValidationError as error:
        faults = [
            Fault(
                ".".join(str(part) for part in fault["loc"]) or "recipe",
                fault["msg"],
                "see recipes/base/embedded.yaml",
            )
            for fault in error.errors()
        ]
        raise RecipeError(str(path), faults) from error
