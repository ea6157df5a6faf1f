"""Which edits the previews of a run show: the first trained on, and some never trained on."""

from __future__ import annotations

from itertools import chain, zip_longest

from customize.families.bases import Base
from customize.pairs.buckets import bucket_for, load_example
from customize.pairs.decode import load_picture
from customize.pairs.held_out import held_out_pairs
from customize.planning import Plan
from customize.previews import Shown
from customize.recipe import Recipe
from customize.shapes import Pair


def choose_shown(plan: Plan) -> list[Shown]:
    """Choose at most `preview.count` edits of each kind; concepts take turns.

    Raises PairsError for held-out pairs with faults.
    """
    recipe, count = plan.recipe, plan.recipe.preview.count
    turns = chain.from_iterable(zip_longest(*plan.concepts.values()))
    trained = [pair for pair in turns if pair is not None][:count]
    shown = [_shown(pair, recipe, plan.base, held_out=False) for pair in trained]
    if recipe.preview.images is not None:
        held_out = held_out_pairs(recipe.preview.images, plan.pairs())
        shown += [_shown(pair, recipe, plan.base, held_out=True) for pair in held_out[:count]]
    return shown


def _shown(pair: Pair, recipe: Recipe, base: Base, *, held_out: bool) -> Shown:
    options = recipe.pairs
    width, height = load_picture(pair.source, options.alpha_color).size
    size = bucket_for(width, height, options.resolution or base.resolution, base.multiple)
    example = load_example(pair, size, alpha_color=options.alpha_color)
    return Shown(example, held_out=held_out, has_target=pair.target != pair.source)
