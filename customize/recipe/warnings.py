"""What is allowed in a recipe and yet hardly meant: settings without effect, unusual numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from customize.recipe.recipe import Recipe
from customize.recipe.sections import LowRank


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
