"""A recipe: the YAML file that says what to teach, to which base, and how.

Parsed once, at the door; imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError, model_validator

from customize.errors import RecipeError
from customize.recipe_agreement import contradictions
from customize.recipe_faults import explain, is_echo
from customize.recipe_paths import fault
from customize.recipe_sections import (
    Base,
    Concept,
    ConditioningDropout,
    CrossAttentionKV,
    LowRank,
    PairOptions,
    Preservation,
    Preview,
    Save,
    Section,
    Train,
)
from customize.recipe_text import read_recipe_text


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _output_folder(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise fault(f"found {value!r}", "write the path of a folder, such as runs/my_dog")
    return Path(value).expanduser()


def _default_output(data: dict[str, Any]) -> Path:
    return Path("runs") / (data["concepts"][0].name if data.get("concepts") else "concept")


class Recipe(Section):
    """All that a training run is told; `model_dump(mode="json")` goes into the adapter's header."""

    base: Annotated[Base, BeforeValidator(_name_alone, json_schema_input_type=str | Base)] = Base()
    """The model that learns: `embedded`, a hub id, a folder or a single file."""
    concepts: tuple[Concept, ...] = Field(min_length=1, strict=False)
    """What to teach; several are learned jointly into one adapter."""
    adapter: CrossAttentionKV | LowRank = Field(default=CrossAttentionKV(), discriminator="method")
    """Which weights learn, and in what form."""
    train: Train = Train()
    """How long and how fast."""
    conditioning_dropout: ConditioningDropout = ConditioningDropout()
    """Samples that learn without a condition."""
    preservation: Preservation = Preservation()
    """Keeping the base's other edits alive."""
    pairs: PairOptions = PairOptions()
    """Size, crops and flips of the training pictures."""
    preview: Preview = Preview()
    """Edits made while training."""
    save: Save = Save()
    """Checkpoints and logs."""
    output: Annotated[Path, PlainValidator(_output_folder, json_schema_input_type=str)] = Field(
        default_factory=_default_output
    )
    """Folder of the run, from the working directory on; null is `runs/` + the first concept."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        found = [
            f"{'.'.join(map(str, loc))}: {found}; {cure}"
            for loc, found, cure in contradictions(self.model_dump())
        ]
        if found:
            raise ValueError("\n".join(found))
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it against itself and the disk.

    Paths start at the recipe's folder; `output`, and those in `overrides` (`train.steps=50`,
    `concepts.0.word=<cat>`; values are YAML), start at the working directory.

    Raises:
        RecipeError: with every fault there is, each with its line and its cure.
    """
    text = read_recipe_text(path, overrides)
    recipe: Recipe | None = None
    if text.values or not text.faults:
        try:
            recipe = Recipe.model_validate(text.values, context={"folder": path.parent})
        except ValidationError as error:
            for details in error.errors(include_url=False):
                if not is_echo(details):
                    text.add_fault(*explain(details, text.values))
        for loc, found, cure in contradictions(text.values):
            text.add_fault(loc, found, cure)
    if text.faults:
        raise RecipeError(
            f"recipe {path}", [found for _, found in sorted(text.faults, key=lambda item: item[0])]
        )
    assert recipe is not None, "a recipe that failed without a fault"
    return recipe


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema by which editors complete and check recipes."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def warnings(recipe: Recipe) -> list[str]:
    """List requests that will have no effect, or hardly the one wanted, with place and cure.

    Defaults are no requests: a run of 10 steps is told of `preview.every: 50` only if the recipe
    says so.
    """
    return [
        *_timing_warnings(recipe),
        *_rate_warnings(recipe),
        *_concept_warnings(recipe),
        *_other_warnings(recipe),
    ]


def _timing_warnings(recipe: Recipe) -> Iterator[str]:
    train, steps = recipe.train, recipe.train.steps
    if steps is None:
        return
    if "every" in recipe.preview.model_fields_set and (recipe.preview.every or 0) > steps:
        yield f"preview.every: {recipe.preview.every} of {steps} steps: none is made; lower it"
    if "every" in recipe.save.model_fields_set and recipe.save.every > steps:
        yield f"save.every: {recipe.save.every} of {steps} steps: a stop loses all; lower it"
    if train.warmup >= steps:
        yield f"train.warmup: {train.warmup} of {steps} steps: full rate is never reached; lower it"
    if train.ema is not None and (span := round(1 / (1 - train.ema))) > steps:
        yield f"train.ema: {train.ema} averages {span} steps, there are {steps}; lower it"


def _rate_warnings(recipe: Recipe) -> Iterator[str]:
    rate, optimizer = recipe.train.learning_rate, recipe.train.optimizer
    place = f"train.learning_rate: {rate:g}"
    if optimizer == "prodigy":
        if rate < 0.1:
            yield f"{place} with prodigy, which finds the rate itself; set it to 1"
    elif rate >= 0.1:
        yield f"{place} is far above what {optimizer} stands; about 1e-3 is usual"
    elif recipe.base.name != "embedded" and rate > 5e-4:
        usual = "8e-5" if recipe.adapter.method == "cross_attention_kv" else "1e-4"
        yield f"{place} suits the embedded base; for {recipe.base.name} start at {usual}"


def _concept_warnings(recipe: Recipe) -> Iterator[str]:
    for index, concept in enumerate(recipe.concepts):
        place = f"concepts.{index}"
        if concept.word is not None and concept.initializer is None:
            yield f"{place}.initializer: {concept.word} has nothing to start from; name a word"
        if concept.pairs == recipe.preview.images:
            yield f"preview.images: the pairs of {place}, which are trained on; name others"
        if concept.pairs in [other.pairs for other in recipe.concepts[:index]]:
            yield f"{place}.pairs: another concept learns from the same; give each its own"
    if len(recipe.concepts) == 1 and recipe.concepts[0].weight != 1:
        yield "concepts.0.weight: has no effect on a single concept; remove it"


def _other_warnings(recipe: Recipe) -> Iterator[str]:
    base, preservation, save = recipe.base, recipe.preservation, recipe.save
    if base.revision is not None and (base.name == "embedded" or os.path.exists(base.name)):
        yield f"base.revision: has no effect, {base.name} is not from the hub; remove it"
    if preservation.share == 0 and preservation.instructions != "base":
        yield "preservation.instructions: have no effect while preservation.share is 0; raise it"
    if "keep_best" in save.model_fields_set and save.keep_best and recipe.preview.every is None:
        yield "save.keep_best: the best step is chosen by previews; set preview.every"
    if isinstance(recipe.adapter, LowRank) and (
        {"attention", "cross_attention"} <= {*recipe.adapter.targets}
    ):
        yield "adapter.targets: attention includes cross_attention; remove one"
