"""A recipe: the YAML file that says what to teach, to which base, and how.

Parsed once, at the door; imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from customize.recipe.contradictions import contradictions
from customize.recipe.read import read_recipe
from customize.recipe.sections import (
    BaseSection,
    Concept,
    ConditioningDropout,
    CrossAttentionKVSection,
    LowRankSection,
    OutputFolder,
    PairOptions,
    Preservation,
    PreviewSection,
    Save,
    Section,
    Train,
)

EXAMPLE = "recipes/my_dog.yaml"


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _default_output(data: dict[str, Any]) -> Path:
    return Path("runs") / (data["concepts"][0].name if data.get("concepts") else "concept")


class Recipe(Section):
    """All that a training run is told; `model_dump(mode="json")` goes into the adapter's header."""

    base: Annotated[
        BaseSection, BeforeValidator(_name_alone, json_schema_input_type=str | BaseSection)
    ] = BaseSection()
    """The model that learns: `embedded`, a hub id, a folder or a single file."""
    concepts: tuple[Concept, ...] = Field(min_length=1, strict=False)
    """What to teach; several are learned jointly into one adapter."""
    adapter: CrossAttentionKVSection | LowRankSection = Field(
        default=CrossAttentionKVSection(), discriminator="method"
    )
    """Which weights learn, and in what form."""
    train: Train = Train()
    """How long and how fast."""
    conditioning_dropout: ConditioningDropout = ConditioningDropout()
    """Samples that learn without a condition."""
    preservation: Preservation = Preservation()
    """Keeping the base's other edits alive."""
    pairs: PairOptions = PairOptions()
    """Size, crops, flips and colours of the training pictures."""
    preview: PreviewSection = PreviewSection()
    """Edits made while training."""
    save: Save = Save()
    """Checkpoints and logs."""
    output: OutputFolder = Field(default_factory=_default_output)
    """Folder of the run, from the working directory on; null is `runs/` + the first concept."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if found := list(contradictions(self.model_dump())):
            raise ValueError("\n".join(map(str, found)))
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it against itself and the disk.

    Paths start at the recipe's folder; `output`, and those in `overrides` (`train.steps=50`,
    `concepts.0.word=<cat>`; values are YAML), start at the working directory.

    Raises:
        RecipeError: with every fault there is, each with its line and its cure.
    """
    return read_recipe(path, Recipe, EXAMPLE, contradictions, overrides)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema by which editors complete and check recipes."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
