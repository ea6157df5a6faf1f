"""Winners as pairs: a recipe whose concepts also have the results that were chosen."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from customize.errors import Fault, PairsError
from customize.files import write_text
from customize.pairs.find import find_pairs
from customize.recipe import Recipe
from customize.recipe.sections import Concept
from customize.scoring.choices.choice import Choice
from customize.shapes import Pair


def with_winners(recipe: Recipe, choices: Sequence[Choice], folder: Path) -> Recipe:
    """Write a table of pairs for each concept into `folder`, and return the recipe that reads them.

    A choice goes to the concept whose word its instruction has, or to the one taught with that
    instruction. The winners of a concept count as much as its own pairs together. Raises PairsError
    where a choice shows none of the concepts.
    """
    own = {concept.name: find_pairs(concept.pairs).pairs for concept in recipe.concepts}
    won: dict[str, list[Pair]] = {concept.name: [] for concept in recipe.concepts}
    faults: list[Fault] = []
    for number, choice in enumerate(choices, start=1):
        assert choice.winner is not None
        name = _concept_of(choice, recipe.concepts, own)
        if name is None:
            found = f"{choice.instruction!r} names none of {', '.join(own)}"
            cure = "leave it out, or refine the adapter it is of"
            faults.append(Fault(f"choice {number}", found, cure))
            continue
        won[name].append(Pair(choice.source, choice.instruction, choice.winner.picture))
    if faults:
        raise PairsError("choices that teach nothing", faults)
    concepts: list[Concept] = []
    for concept in recipe.concepts:
        table = folder / f"{concept.name}.jsonl"
        _write(table, own[concept.name], won[concept.name])
        concepts.append(concept.model_copy(update={"pairs": table}))
    return recipe.model_copy(update={"concepts": tuple(concepts)})


def _concept_of(
    choice: Choice, concepts: Sequence[Concept], own: dict[str, tuple[Pair, ...]]
) -> str | None:
    for concept in concepts:
        if concept.word is not None and concept.word.lower() in choice.instruction.lower():
            return concept.name
    for name, pairs in own.items():
        if choice.instruction in [pair.instruction for pair in pairs]:
            return name
    alone = concepts[0] if len(concepts) == 1 else None
    return alone.name if alone is not None and alone.word is None else None


def _write(table: Path, own: Sequence[Pair], won: Sequence[Pair]) -> None:
    """Write pairs in our own layout, pictures by their way from the table's folder."""
    weight = sum(pair.weight for pair in own) / len(won) if won else 1.0
    rows = [_row(table, pair, pair.weight) for pair in own]
    rows += [_row(table, pair, weight) for pair in won]
    write_text(table, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _row(table: Path, pair: Pair, weight: float) -> dict[str, Any]:
    def place(picture: Path) -> str:
        return Path(os.path.relpath(picture, table.parent)).as_posix()

    captions = {"source_caption": pair.source_caption, "edited_caption": pair.target_caption}
    return {
        "source": place(pair.source),
        "instruction": pair.instruction,
        "edited": place(pair.target),
        **{key: caption for key, caption in captions.items() if caption},
        "weight": weight,
    }
