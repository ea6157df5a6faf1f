"""Everything about a recipe that can be found out without training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customize.errors import BaseModelError, Fault, OutputError, PairsError, RecipeError
from customize.families import profile_of
from customize.families.base import Base, resolve_base
from customize.files import Used, check_place
from customize.pairs.find import PairSet, find_pairs
from customize.pairs.held_out import held_out_pairs
from customize.pairs.lint.lint_pairs import lint
from customize.pairs.lint.pictures import look_at_all, size_faults
from customize.recipe import Recipe
from customize.recipe.sections import Concept
from customize.recipe.warnings import warnings
from customize.shapes import Pair
from customize.training.family_limits import family_faults
from customize.training.preserved_edits import instructions_to_preserve


@dataclass(frozen=True)
class Checked:
    """What was found: the pairs of each concept that has any, and all faults, errors first.

    `base` is None where it could not be found, which is an error.
    """

    pairs: dict[str, PairSet]
    faults: list[Fault]
    base: Base | None

    @property
    def has_errors(self) -> bool:
        """Whether training would refuse to start."""
        return any(fault.level == "error" for fault in self.faults)

    def all_pairs(self) -> list[Pair]:
        """List the pairs of all concepts, in the recipe's order."""
        return [pair for found in self.pairs.values() for pair in found.pairs]


def base_of(recipe: Recipe) -> Base:
    """Find the base that a recipe names; raises BaseModelError, also for one not to be trained on.

    Where it asks for float32 throughout, `base.precision: auto` is float32 on a GPU too.
    """
    precision = recipe.base.precision
    if precision == "auto" and recipe.train.precision == "no":
        precision = "float32"
    base = resolve_base(recipe.base.name, recipe.base.revision, precision)
    if base.untrainable is not None:
        found, cure = base.untrainable
        raise BaseModelError(f"base {base.name!r}: {found}", cure)
    return base


def check_output(recipe: Recipe, base: Base | None = None, pairs: Sequence[Pair] = ()) -> None:
    """Raise OutputError where the run's folder is, holds or lies in what the run reads.

    With its base and pairs found, wherever they lie, as well as by the recipe's own paths.
    """
    kept, images = recipe.preservation, recipe.preview.images
    used = [Used(f"the pairs of {concept.name}", concept.pairs) for concept in recipe.concepts]
    if images is not None:
        used.append(Used("the previews' pictures", images))
    if kept.regularization_pairs is not None:
        used.append(Used("the pairs to rehearse", kept.regularization_pairs))
    if isinstance(kept.instructions, Path):
        used.append(Used("the instructions to preserve", kept.instructions))
    places = [Path(recipe.base.name)] if os.path.exists(recipe.base.name) else []
    used += [Used("the base", place) for place in (*places, *([base.folder] if base else []))]
    pictures = (p for pair in pairs for p in (pair.source, pair.target, *pair.references))
    folders = {picture.parent: picture for picture in pictures}
    used += [Used("pictures of the pairs", picture) for picture in folders.values()]
    check_place(recipe.output, used, folder=True)


def check_recipe(recipe: Recipe, base: Base | None = None) -> Checked:
    """Look at the base, the words and every pair of `recipe`; faults are listed, not raised.

    `base` is the recipe's own where it was found before.
    """
    faults = list(warnings(recipe))
    pairs: dict[str, PairSet] = {}
    profile = tokenizer = None
    try:
        base = base or base_of(recipe)
        profile = profile_of(base.family)
        faults += family_faults(recipe, profile)
        if base.notice is not None:
            cure = "use it within its licence, or choose another base"
            faults.append(Fault("base", base.notice, cure, "warning"))
        tokenizer = _tokenizer(base)
    except BaseModelError as error:
        faults.append(Fault("base", error.found, error.cure))
    # Without a base no picture is too small: 1 pixel a side will do.
    resolution = recipe.pairs.resolution or (base.resolution if base else 1)
    references = profile is not None and profile.reads_references
    most_tokens = None  # of an instruction, without start and end
    if profile and tokenizer:
        most_tokens = profile.longest_text or tokenizer.model_max_length - 2
    for concept in recipe.concepts:
        if tokenizer is not None and profile is not None and profile.learns_text:
            faults += _word_faults(concept, tokenizer)
        try:
            found = find_pairs(concept.pairs, references=references)
        except PairsError as error:
            faults += error.faults
            continue
        pairs[concept.name] = found
        faults += lint(
            found.pairs,
            resolution=resolution,
            word=concept.word,
            alpha_color=recipe.pairs.alpha_color,
            flip=recipe.pairs.flip,
            recolored=recipe.pairs.recolored,
            tokenizer=tokenizer.tokenize if tokenizer else None,
            most_tokens=most_tokens,
        )
    trained = [pair for found in pairs.values() for pair in found.pairs]
    faults += _faults_beside(recipe, trained, base)
    try:
        check_output(recipe, base, trained)
    except OutputError as error:
        faults.append(Fault("output", error.found, error.cure))
    return Checked(pairs, sorted(faults, key=lambda fault: fault.level != "error"), base)


def _faults_beside(recipe: Recipe, trained: Sequence[Pair], base: Base | None) -> Iterator[Fault]:
    """Find what is wrong with what is read beside the pairs: other pairs, previews, instructions.

    Of previews the pictures that will be shown are looked at.
    """
    references = base is not None and profile_of(base.family).reads_references
    others, images = recipe.preservation.regularization_pairs, recipe.preview.images
    listed = list[Pair]()
    try:
        if others is not None:
            listed += find_pairs(others, references=references).pairs
    except PairsError as error:
        yield from error.faults
    try:
        if images is not None and trained:
            held_out = held_out_pairs(images, trained, references=references)
            listed += held_out[: recipe.preview.count]
    except PairsError as error:
        yield from error.faults
    seen, unreadable = look_at_all(listed, recipe.pairs.alpha_color)
    yield from unreadable
    yield from (fault for fault in size_faults(seen, 1) if fault.level == "error")
    if base is not None:
        try:
            instructions_to_preserve(recipe.preservation, base)
        except RecipeError as error:
            yield from error.faults
        except BaseModelError as error:
            yield Fault("base", error.found, error.cure)


def _tokenizer(base: Base) -> Any:
    """Open the base's tokenizer; by its own class, as AutoTokenizer alone loads torch."""
    from customize.families.loading.quiet import hush

    hush()
    import transformers

    try:
        kind = getattr(transformers, profile_of(base.family).tokenizer_class)
        return kind.from_pretrained(base.folder / "tokenizer")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(
            f"base {base.name!r}: its tokenizer cannot be read ({error}); expected a complete "
            "model folder",
            "download it again",
        ) from None


def _word_faults(concept: Concept, tokenizer: Any) -> list[Fault]:
    """Find what the base's vocabulary says of a concept's word and its initializer."""
    place, found = f"concept {concept.name}", list[Fault]()
    if concept.word and concept.word in tokenizer.get_vocab():
        cure = "choose another word, or the base's own meaning is changed"
        found.append(Fault(place, f"{concept.word} is a word of the base already", cure))
    pieces = tokenizer.tokenize(concept.initializer) if concept.initializer else []
    if len(pieces) > 1:
        text = f"its initializer {concept.initializer!r} is broken up into {' '.join(pieces)}"
        found.append(Fault(place, text, "name a plainer word to start from", "warning"))
    return found
