"""Edits to make and judge: from a pairs folder, a recipe, or the embedded base's drawn world."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from customize.errors import ScoreError
from customize.families.words import replace_words
from customize.pairs.find import find_pairs
from customize.pairs.held_out import held_out_pairs
from customize.recipe import Recipe
from customize.scoring.items import Item, Picture
from customize.shapes import Pair

WORLD = "embedded"
"""Names the drawn world's own edits; `embedded/my_dog` is one of its concepts, on unseen sources.
"""

_SEED = 30
"""Of the drawn edits, apart from those that fitting, testing and benchmarks draw."""

_REFERENCES = 4
"""Pictures of a drawn concept: those that `examples/make_pairs.py` gives to train on."""

_CHANGED = 10
"""Of 255: from this difference of source and target on, a drawn pixel belongs to the edit."""


@dataclass(frozen=True)
class EditTask:
    """An edit to make, and all that is known of how it should come out; see `Item`."""

    source: Picture
    instruction: str
    target: Picture | None = None
    source_caption: str | None = None
    target_caption: str | None = None
    mask: Picture | None = None
    references: tuple[Picture, ...] = ()
    plainly: str | None = None
    concept: str = ""
    name: str = ""
    further_sources: tuple[Picture, ...] = ()

    @property
    def wording(self) -> str:
        """Return the instruction as a CLIP is to read it."""
        return self.plainly or self.instruction

    def finished(self, output: Picture) -> Item:
        """Return the task with its answer."""
        return Item(output=output, **vars(self))


def tasks_of_pairs(path: Path, count: int | None = None) -> list[EditTask]:
    """Read pairs in any known layout; their targets are the concept's pictures.

    Raises PairsError.
    """
    pairs = find_pairs(path, references=True).pairs
    targets = tuple(pair.target for pair in pairs)
    return [replace(_task(pair), references=targets) for pair in pairs[:count]]


def tasks_of_recipe(recipe: Recipe, count: int | None = None) -> list[EditTask]:
    """Take a recipe's held-out pairs (`preview.images`), else those it trains on.

    The concept's pictures are the targets it trains on. Raises PairsError.
    """
    found = {each.name: find_pairs(each.pairs, references=True) for each in recipe.concepts}
    trained = {name: pair_set.pairs for name, pair_set in found.items()}
    tasks = [
        replace(_task(pair), concept=name) for name, pairs in trained.items() for pair in pairs
    ]
    if recipe.preview.images is not None:
        known = [pair for pairs in trained.values() for pair in pairs]
        held_out = held_out_pairs(recipe.preview.images, known, references=True)
        tasks = [
            replace(_task(pair), concept=_concept_of(pair, recipe, trained)) for pair in held_out
        ]
    pictures = {name: tuple(pair.target for pair in pairs) for name, pairs in trained.items()}
    return [replace(task, references=pictures.get(task.concept, ())) for task in tasks[:count]]


def drawn_tasks(name: str, count: int) -> list[EditTask]:
    """Draw edits of the embedded base's world with their true targets, captions and masks.

    Raises ScoreError for an unknown concept.
    """
    from customize.embedded.world.concepts import CONCEPT_NAMES, ConceptName, concept_pairs
    from customize.embedded.world.edits import DrawnEdit, random_edit

    concept = name.removeprefix(WORLD).removeprefix("/")
    edits: list[DrawnEdit] = []
    references: tuple[Picture, ...] = ()
    if not concept:
        drawn = (random_edit((_SEED, index), test=True) for index in itertools.count())
        edits = list(itertools.islice((edit for edit in drawn if edit.kind != "keep"), count))
    else:
        names: dict[str, ConceptName] = {known: known for known in CONCEPT_NAMES}
        if concept not in names:
            raise ScoreError(
                f"{name}: the drawn world has no concept {concept!r}; expected {WORLD} or "
                f"{', '.join(f'{WORLD}/{each}' for each in CONCEPT_NAMES)}; choose one of them"
            )
        edits = concept_pairs(names[concept], count, test=True)
        taught = concept_pairs(names[concept], _REFERENCES)
        references = tuple(Image.fromarray(pair.target_HWC) for pair in taught)
    return [
        EditTask(
            Image.fromarray(edit.source_HWC),
            edit.instruction,
            Image.fromarray(edit.target_HWC),
            edit.source_caption,
            edit.target_caption,
            _mask(edit.source_HWC, edit.target_HWC),
            references,
            concept=concept,
            name=f"{name} {index}",
        )
        for index, edit in enumerate(edits)
    ]


def in_plain_words(task: EditTask, plain: Mapping[str, str], known: Sequence[str] = ()) -> EditTask:
    """Say taught words in those they start from: for the CLIP all, for the base those not `known`.

    `known` are the words that the adapters in use teach.
    """
    lowered = {word.lower() for word in known}
    foreign = {word: text for word, text in plain.items() if word.lower() not in lowered}
    return replace(
        task,
        instruction=replace_words(task.instruction, foreign),
        plainly=replace_words(task.instruction, plain),
        source_caption=task.source_caption and replace_words(task.source_caption, plain),
        target_caption=task.target_caption and replace_words(task.target_caption, plain),
    )


def _task(pair: Pair) -> EditTask:
    return EditTask(
        pair.source,
        pair.instruction,
        None if pair.target == pair.source else pair.target,
        pair.source_caption,
        pair.target_caption,
        name=pair.place or pair.source.name,
        further_sources=pair.references,
    )


def _concept_of(pair: Pair, recipe: Recipe, trained: Mapping[str, Sequence[Pair]]) -> str:
    """Say which concept a held-out pair shows: by its word, by its instruction, or the only one."""
    for concept in recipe.concepts:
        if concept.word is not None and concept.word.lower() in pair.instruction.lower():
            return concept.name
    for name, pairs in trained.items():
        if pair.instruction in [each.instruction for each in pairs]:
            return name
    return recipe.concepts[0].name if len(recipe.concepts) == 1 else ""


def _mask(source_HWC: np.ndarray, target_HWC: np.ndarray) -> Image.Image:
    change_HW = np.abs(source_HWC.astype(int) - target_HWC).max(axis=-1)
    return Image.fromarray(np.where(change_HW > _CHANGED, 255, 0).astype(np.uint8))
