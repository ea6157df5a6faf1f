"""The short YAML that says how long each stage of fitting the embedded base learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from customize.recipe.read import read_recipe
from customize.recipe.sections import OutputFolder, Section
from customize.recipe.yaml_text import read_recipe_text

EXAMPLE = "recipes/base/embedded.yaml"
_STAGE = ["{samples: 0, batch: 16, learning_rate: 1.0e-3}"]


class FitStage(Section):
    """One stage: `samples` in all (0 skips it), `batch` over all workers.

    With `minutes` it ends when they are over, if samples are left by then.
    """

    samples: int = Field(ge=0, examples=[56000])
    batch: int = Field(ge=1, examples=[16])
    learning_rate: float = Field(gt=0, lt=1, examples=["1.0e-3"])
    cooldown: float = Field(default=0.2, ge=0, le=1)
    minutes: float | None = Field(default=None, gt=0)
    snapshot: int = Field(default=50_000, ge=1)


class AutoencoderStage(FitStage):
    """The autoencoder's stage; `encoder` lets the encoder of a base to go on from learn as well."""

    encoder: bool = False


class EditorStage(FitStage):
    """The editor's stage; `compile` takes minutes at its start and makes steps up to twice as fast.

    Without a word of it a step is compiled on a GPU, where that takes one minute, and not on a CPU,
    where it takes 8 to 20: worth it for a fit of many hours. torch keeps what it has compiled
    (`TORCHINDUCTOR_CACHE_DIR`), so that going on begins sooner.
    """

    compile: bool | None = None

    def compiles(self, device: str) -> bool:
        """Tell whether steps on `device` are compiled."""
        return device == "cuda" if self.compile is None else self.compile


class EmbeddedBaseRecipe(Section):
    """How the embedded base is fitted, on pictures of `size` pixels a side.

    `workers` share the learning on a CPU. `drawers` draw ahead of it; without a number all cores
    but one do where there is a GPU, and none elsewhere.
    """

    seed: int = 1
    workers: int = Field(default=2, ge=1, le=64)
    drawers: int | None = Field(default=None, ge=0, le=256)
    output: OutputFolder = Path("runs/base")
    pool: int = Field(default=8192, ge=1)
    size: Literal[64, 128] = 64
    autoencoder: AutoencoderStage = Field(examples=_STAGE)
    clip: FitStage = Field(examples=_STAGE)
    editor: EditorStage = Field(examples=_STAGE)


def is_embedded_base(path: Path) -> bool:
    """Tell this kind of recipe from that of an editing base: it names a stage."""
    stages = {"autoencoder", "clip", "editor"}
    return not stages.isdisjoint(read_recipe_text(path, (), EXAMPLE).values)


def load_embedded_base(path: Path) -> EmbeddedBaseRecipe:
    """Read and check a recipe; raises RecipeError with every fault, its line and its cure."""
    return read_recipe(path, EmbeddedBaseRecipe, EXAMPLE, lambda _: ())
