"""Which edits the previews of a run show, trained on and not, and how they are sampled."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, zip_longest

from customize.families import profile_of
from customize.families.base import Base
from customize.families.sampling_defaults import Sampling, sampling_of
from customize.families.words import replace_words
from customize.pairs.buckets import bucket_for, load_example
from customize.pairs.decode import load_picture
from customize.pairs.held_out import held_out_pairs
from customize.recipe import Recipe
from customize.shapes import Pair
from customize.training.plan import Plan
from customize.training.previews import PreviewEdit

MOST_STEPS = 20
"""Steps of a preview for which the recipe names none: InstructPix2Pix's own hundred, of three
predictions each, would take longer than learning between two previews."""


def choose_shown(plan: Plan) -> list[PreviewEdit]:
    """Choose at most `preview.count` edits of each kind; concepts take turns.

    Raises PairsError for held-out pairs with faults.
    """
    recipe, count = plan.recipe, plan.recipe.preview.count
    turns = chain.from_iterable(zip_longest(*plan.concepts.values()))
    trained = [pair for pair in turns if pair is not None][:count]
    shown = [_shown(pair, recipe, plan.base, held_out=False) for pair in trained]
    if (place := recipe.preview.images) is not None:
        several = profile_of(plan.base.family).reads_references
        for pair in held_out_pairs(place, plan.pairs(), references=several)[:count]:
            said = replace_words(pair.instruction, plan.plain)
            pair = replace(pair, instruction=said)
            shown.append(_shown(pair, recipe, plan.base, held_out=True))
    return shown


def choose_sampling(plan: Plan) -> tuple[Sampling, str | None]:
    """Return how previews are sampled and by which scheduler, None for the base's own.

    What the recipe leaves open is as the base does it, with at most `MOST_STEPS` steps.
    """
    wanted, own = plan.recipe.preview, sampling_of(plan.base)
    sampling = Sampling(
        steps=wanted.steps or min(own.steps, MOST_STEPS),
        text_guidance=wanted.text_guidance or own.text_guidance,
        image_guidance=wanted.image_guidance or own.image_guidance,
    )
    fewer = wanted.steps is None and sampling.steps < own.steps
    return sampling, profile_of(plan.base.family).few_steps_sampler if fewer else None


def _shown(pair: Pair, recipe: Recipe, base: Base, *, held_out: bool) -> PreviewEdit:
    options = recipe.pairs
    width, height = load_picture(pair.source, options.alpha_color).size
    size = bucket_for(width, height, options.resolution or base.resolution, base.multiple)
    example = load_example(pair, size, alpha_color=options.alpha_color)
    return PreviewEdit(example, held_out=held_out, has_target=pair.target != pair.source)
