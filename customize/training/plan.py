"""From a recipe to everything a run needs to know before a model is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from customize import adapters
from customize.errors import PairsError
from customize.families import profile_of
from customize.families.base import Base
from customize.families.words import Word, replace_words
from customize.pairs.buckets import bucket_for, crops
from customize.pairs.decode import load_picture
from customize.pairs.find import find_pairs
from customize.recipe import Recipe
from customize.recipe.sections import CrossAttentionKVSection, LowRankSection
from customize.shapes import Pair
from customize.training.cache import View, pair_digest
from customize.training.check import Checked, base_of, check_output, check_recipe
from customize.training.family_limits import plain_words
from customize.training.preserved_edits import instructions_to_preserve

UNSHAPING = (
    "output",
    "base.",
    "save.",
    "preview.",
    "train.compile",
    "train.gradient_checkpointing",
)
"""Fields that do not change what is learned, or whose meaning `Plan` holds: a path's content."""

LENGTH = ("train.steps", "train.epochs")
"""Fields that say how long a run is, which may be lengthened."""


@dataclass(frozen=True)
class Plan:
    """A recipe with its base found, its pairs found and checked, its words and texts gathered.

    `concepts` holds each concept's pairs by its name, `instructions` those to preserve. `plain` are
    the words that are not learned, with the text that stands for them in all instructions.
    """

    recipe: Recipe
    base: Base
    method: adapters.Method
    words: tuple[Word, ...]
    concepts: Mapping[str, tuple[Pair, ...]]
    regularization: tuple[Pair, ...]
    instructions: tuple[str, ...]
    plain: Mapping[str, str] = field(default_factory=dict)

    def pairs(self) -> list[Pair]:
        """List the pairs of all concepts."""
        return [pair for pairs in self.concepts.values() for pair in pairs]


def plan_run(recipe: Recipe, log: Callable[[str], None], checked: Checked | None = None) -> Plan:
    """Find and check all that the recipe names, if it is not `checked` yet; warnings are logged.

    Raises BaseModelError, OutputError, or PairsError with every error the lint found.
    """
    base = (checked.base if checked else None) or base_of(recipe)
    checked = checked or check_recipe(recipe, base)
    check_output(recipe, base, checked.all_pairs())
    for fault in checked.faults:
        if fault.level == "warning":
            log(str(fault))
    if errors := [fault for fault in checked.faults if fault.level == "error"]:
        raise PairsError("the pairs cannot be learned", errors)
    for name, found in checked.pairs.items():
        log(f"{name}: {len(found.pairs)} pairs, laid out as {found.layout}")
    others = recipe.preservation.regularization_pairs
    profile = profile_of(base.family)
    plain = plain_words(recipe, profile)
    words = [Word(c.word, c.initializer, c.vectors) for c in recipe.concepts if c.word]
    return Plan(
        recipe=recipe,
        base=base,
        method=_method(recipe.adapter),
        words=tuple(word for word in words if word.text not in plain),
        plain=plain,
        concepts={n: _in_plain_words(found.pairs, plain) for n, found in checked.pairs.items()},
        regularization=(
            find_pairs(others, references=profile.reads_references).pairs if others else ()
        ),
        instructions=instructions_to_preserve(recipe.preservation, base),
    )


def views_of(pairs: Sequence[Pair], recipe: Recipe, base: Base) -> list[View]:
    """List the views of every pair that the recipe's crops, flips and other colours make."""
    options, found = recipe.pairs, list[View]()
    resolution = options.resolution or base.resolution
    for index, pair in enumerate(pairs):
        picture = load_picture(pair.source, options.alpha_color)
        size = bucket_for(*picture.size, resolution, base.multiple)
        seed = recipe.train.seed + index
        found += [
            View(pair, size, crop, flip, options.alpha_color, colors)
            for crop in crops(options.crops, seed)
            for flip in ((False, True) if options.flip else (False,))
            for colors in (None, *_color_seeds(options.recolored, seed))
        ]
    return found


def _color_seeds(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(2**31, size=count).tolist()


def count_steps(recipe: Recipe, pairs: int, processes: int) -> int:
    """Return how many optimizer steps the recipe asks for; an epoch passes each pair once."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    assert recipe.train.epochs is not None
    drawn = recipe.train.batch * recipe.train.accumulation * processes
    own = drawn * (1 - recipe.preservation.regularization_share)
    return math.ceil(recipe.train.epochs * pairs / own)


def shaping_facts(plan: Plan) -> dict[str, Any]:
    """List by dotted name what shapes the training, so that a checkpoint knows its own run.

    Pairs count by their content: they may move.
    """
    flat = _flatten(plan.recipe.model_dump(mode="json"))
    facts = {
        place: value
        for place, value in flat.items()
        if not place.startswith(UNSHAPING) and place.rpartition(".")[2] not in ("name", "pairs")
    }
    for place in ("preservation.instructions", "preservation.regularization_pairs"):
        facts.pop(place, None)
    facts["base"] = plan.base.fingerprint
    facts["base.precision"] = plan.base.precision
    facts["base.quantization"] = plan.recipe.base.quantization
    for name, pairs in plan.concepts.items():
        facts[f"pairs of {name}"] = _digests(pairs)
    facts["preservation.regularization_pairs"] = _digests(plan.regularization)
    facts["preservation.instructions"] = list(plan.instructions)
    return json.loads(json.dumps(facts))  # as it will come back: lists for tuples


def _digests(pairs: Sequence[Pair]) -> list[Any]:
    return [[pair_digest(pair)[:16], pair.weight] for pair in pairs]


def _flatten(value: Any, place: str = "") -> dict[str, Any]:
    match value:
        case dict():
            items = list(value.items())
        case list() if value and isinstance(value[0], dict):
            items = list(enumerate(value))
        case _:
            return {place: value}
    found: dict[str, Any] = {}
    for key, inner in items:
        found |= _flatten(inner, f"{place}.{key}" if place else str(key))
    return found


def _in_plain_words(pairs: Sequence[Pair], plain: Mapping[str, str]) -> tuple[Pair, ...]:
    return tuple(replace(p, instruction=replace_words(p.instruction, plain)) for p in pairs)


def _method(section: CrossAttentionKVSection | LowRankSection) -> adapters.Method:
    if isinstance(section, CrossAttentionKVSection):
        return adapters.CrossAttentionKV()
    text_rank = section.text_encoder_rank or section.rank
    return adapters.LowRank(
        rank=section.rank,
        alpha=section.alpha,
        decompose=section.decompose,
        targets=tuple(section.targets),
        text_encoder_rank=text_rank if section.text_encoder else 0,
    )
