"""What is allowed in a recipe and yet hardly meant: settings without effect, unusual numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from customize.errors import Fault
from customize.recipe.recipe import Recipe
from customize.recipe.sections import LowRankSection


def warnings(recipe: Recipe) -> list[Fault]:
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


def _timing_warnings(recipe: Recipe) -> Iterator[Fault]:
    train, steps = recipe.train, recipe.train.steps
    if steps is None:
        return
    if "every" in recipe.preview.model_fields_set and (recipe.preview.every or 0) > steps:
        found = f"{recipe.preview.every} of {steps} steps: none is made"
        yield _warning("preview.every", found, "lower it")
    if "every" in recipe.save.model_fields_set and recipe.save.every > steps:
        found = f"{recipe.save.every} of {steps} steps: a stop loses all"
        yield _warning("save.every", found, "lower it")
    if train.warmup >= steps:
        found = f"{train.warmup} of {steps} steps: full rate is never reached"
        yield _warning("train.warmup", found, "lower it")
    if train.ema is not None and (span := round(1 / (1 - train.ema))) > steps:
        yield _warning("train.ema", f"{train.ema} averages {span} steps of {steps}", "lower it")


def _rate_warnings(recipe: Recipe) -> Iterator[Fault]:
    rate, optimizer = recipe.train.learning_rate, recipe.train.optimizer
    place, base = "train.learning_rate", recipe.base.name
    if optimizer == "prodigy":
        if rate < 0.1:
            found = f"{rate:g} with prodigy, which finds the rate itself"
            yield _warning(place, found, "set it to 1")
    elif rate >= 0.1:
        found = f"{rate:g} is far above what {optimizer} stands"
        yield _warning(place, found, "lower it: about 1e-3 is usual")
    elif base != "embedded" and rate > 5e-4:
        usual = "8e-5" if recipe.adapter.method == "cross_attention_kv" else "1e-4"
        found = f"{rate:g} suits the embedded base"
        yield _warning(place, found, f"for {base} start at {usual}")


def _concept_warnings(recipe: Recipe) -> Iterator[Fault]:
    for index, concept in enumerate(recipe.concepts):
        place = f"concepts.{index}"
        if concept.word is not None and concept.initializer is None:
            found = f"{concept.word} has nothing to start from"
            yield _warning(f"{place}.initializer", found, "name a word")
        if concept.pairs == recipe.preview.images:
            found = f"the pairs of {place}, which are trained on"
            yield _warning("preview.images", found, "name others")
        if concept.pairs in [other.pairs for other in recipe.concepts[:index]]:
            found = "another concept learns from the same"
            yield _warning(f"{place}.pairs", found, "give each its own")
    if len(recipe.concepts) == 1 and recipe.concepts[0].weight != 1:
        yield _warning("concepts.0.weight", "has no effect on a single concept", "remove it")


def _other_warnings(recipe: Recipe) -> Iterator[Fault]:
    base, preservation, save = recipe.base, recipe.preservation, recipe.save
    if base.revision is not None and (base.name == "embedded" or os.path.exists(base.name)):
        found = f"has no effect, {base.name} is not from the hub"
        yield _warning("base.revision", found, "remove it")
    if preservation.share == 0 and preservation.instructions != "base":
        found = "have no effect while preservation.share is 0"
        yield _warning("preservation.instructions", found, "raise it")
    if "keep_best" in save.model_fields_set and save.keep_best and recipe.preview.every is None:
        found = "the best step is chosen by previews"
        yield _warning("save.keep_best", found, "set preview.every")
    targets = (
        {*recipe.adapter.targets} if isinstance(recipe.adapter, LowRankSection) else set[str]()
    )
    if {"attention", "cross_attention"} <= targets:
        yield _warning("adapter.targets", "attention includes cross_attention", "remove one")
    if "all" in targets and len(targets) > 1:
        yield _warning("adapter.targets", "all includes every other group", "keep it alone")


def _warning(place: str, found: str, cure: str) -> Fault:
    return Fault(place, found, cure, "warning")
