"""What a recipe asks for and its base's family cannot do, by the family's profile alone."""

from __future__ import annotations

from collections.abc import Iterator

from customize.errors import Fault
from customize.families.profile import Profile
from customize.families.words import Word
from customize.recipe import Recipe
from customize.recipe.sections import LowRankSection


def family_faults(recipe: Recipe, profile: Profile) -> Iterator[Fault]:
    """Yield errors for what cannot be done, warnings for what has another effect or none."""
    train = recipe.train
    if profile.objective == "flow_matching" and train.min_snr is not None:
        found = "this base learns by flow matching, which has no such weights"
        yield Fault("train.min_snr", found, "set it to null")
    if profile.objective != "flow_matching" and train.levels is not None:
        found = f"{train.levels} is for bases that learn by flow matching"
        yield Fault("train.levels", found, "set it to null")
    if not profile.learns_text:
        yield from _text_faults(recipe)
    if not profile.guides_by_source:
        yield from _source_faults(recipe)
    if recipe.adapter.method == "cross_attention_kv" and not profile.layers.text_alone:
        found = "only the first blocks of this base keep text apart: few layers would learn"
        yield _warning("adapter.method", found, "low_rank reaches all of them")


def plain_words(recipe: Recipe, profile: Profile) -> dict[str, str]:
    """Map the concepts' words to the plain text that instructions get where no word is learned."""
    if profile.learns_text:
        return {}
    return {
        concept.word: Word(concept.word, concept.initializer).plain
        for concept in recipe.concepts
        if concept.word
    }


def _text_faults(recipe: Recipe) -> Iterator[Fault]:
    if isinstance(recipe.adapter, LowRankSection) and recipe.adapter.text_encoder:
        found = "this base's text encoder is a language model that is not taught here"
        yield Fault("adapter.text_encoder", found, "set it to false")
    for index, concept in enumerate(recipe.concepts):
        if concept.word is None:
            continue
        said = Word(concept.word, concept.initializer).plain
        found = f"no word is learned on this base: {concept.word} becomes the plain text {said!r}"
        yield _warning(f"concepts.{index}.word", found, f"write {said!r} in instructions later on")
        if concept.vectors > 1:
            found = "has no effect: no word is learned on this base"
            yield _warning(f"concepts.{index}.vectors", found, "remove it")
    if recipe.train.word_learning_rate is not None:
        found = "has no effect: no word is learned on this base"
        yield _warning("train.word_learning_rate", found, "remove it")


def _source_faults(recipe: Recipe) -> Iterator[Fault]:
    dropout, preview = recipe.conditioning_dropout, recipe.preview
    found = "has no effect: this base never works without its source"
    for name in ("image", "both"):
        if name in dropout.model_fields_set and getattr(dropout, name) > 0:
            yield _warning(f"conditioning_dropout.{name}", found, "use `text`, or set it to 0")
    if preview.image_guidance is not None:
        found = "has no effect: this base is guided by the text alone"
        yield _warning("preview.image_guidance", found, "remove it")


def _warning(place: str, found: str, cure: str) -> Fault:
    return Fault(place, found, cure, "warning")
