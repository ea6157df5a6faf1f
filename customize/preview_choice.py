"""Which edits the previews of a run show: the first trained on, and some never trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from customize.families.bases import Base
from customize.pairs.buckets import bucket_for, load_example
from customize.pairs.decode import load_picture
from customize.pairs.files import pictures_by_stem, visible
from customize.pairs.layouts import find_pairs
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


def held_out_pairs(path: Path, trained: Sequence[Pair]) -> list[Pair]:
    """Return the pairs at `path`; plain pictures take the trained instructions, in turn.

    A picture without a target is its own: `Shown` says which are. Raises PairsError.
    """
    if pictures := list(_plain_pictures(path)):
        instructions = list(dict.fromkeys(pair.instruction for pair in trained))
        return [
            Pair(picture, instructions[index % len(instructions)], picture, place=picture.name)
            for index, picture in enumerate(pictures)
        ]
    return list(find_pairs(path).pairs)


def _plain_pictures(path: Path) -> Iterator[Path]:
    """List the pictures of a folder that holds nothing else, which no layout of pairs does."""
    if not path.is_dir():
        return
    pictures = pictures_by_stem(path)
    paths = [picture for same in pictures.values() for picture in same]
    if {*paths} == {*visible(path)} and not any(s.endswith(("_start", "_end")) for s in pictures):
        yield from paths


def _shown(pair: Pair, recipe: Recipe, base: Base, *, held_out: bool) -> Shown:
    options = recipe.pairs
    width, height = load_picture(pair.source, options.alpha_color).size
    size = bucket_for(width, height, options.resolution or base.resolution, base.multiple)
    example = load_example(pair, size, alpha_color=options.alpha_color)
    return Shown(example, held_out=held_out, has_target=pair.target != pair.source)
