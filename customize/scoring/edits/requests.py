"""What the user names to be scored, and the models that suit it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from customize.errors import ScoreError
from customize.files.text import found_at
from customize.recipe import Recipe, load_recipe
from customize.scoring.edits.finished import finished_table, read_finished
from customize.scoring.edits.tasks import (
    WORLD,
    EditTask,
    drawn_tasks,
    tasks_of_pairs,
    tasks_of_recipe,
)
from customize.scoring.items import Item
from customize.scoring.networks.embed import opened

DRAWN = 32
"""Edits drawn of the embedded base's world where the user names no count."""

VIT = "openai/clip-vit-large-patch14"
"""The CLIP that the InstructPix2Pix paper measures with."""

_EMBEDDED_SIDE = 64


@dataclass(frozen=True)
class RequestedEdits:
    """What was found under a name: edits to make, with the recipe they came from, or finished."""

    tasks: tuple[EditTask, ...] = ()
    finished: tuple[Item, ...] = ()
    recipe: Recipe | None = None


def read_asked(name: str, count: int | None = None) -> RequestedEdits:
    """Read a recipe, pairs, a table or folder of finished edits, or `embedded` for drawn edits.

    `count` takes only the first of them. Raises RecipeError, PairsError, FaultsError, ScoreError.
    """
    if count is not None and count < 1:
        raise ScoreError(f"count {count}: expected at least 1; leave it out for all")
    if name == WORLD or name.startswith(f"{WORLD}/"):
        return RequestedEdits(tuple(drawn_tasks(name, count or DRAWN)))
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        recipe = load_recipe(path)
        return RequestedEdits(tuple(tasks_of_recipe(recipe, count)), recipe=recipe)
    if not path.is_file() and not path.is_dir():
        close = difflib.get_close_matches(name, [WORLD], n=1)
        cure = f"did you mean {close[0]!r}?" if close else "check the path"
        raise ScoreError(
            f"{name}: there is {found_at(path)}; expected a recipe, pairs, finished edits or "
            f"{WORLD!r}; {cure}"
        )
    if table := finished_table(path):
        return RequestedEdits(finished=tuple(read_finished(table)[:count]))
    return RequestedEdits(tuple(tasks_of_pairs(path, count)))


def tasks_asked(name: str, count: int | None = None) -> RequestedEdits:
    """Read edits to make; raises ScoreError where the name is of finished ones."""
    asked = read_asked(name, count)
    if asked.finished:
        raise ScoreError(
            f"{name}: these edits are finished, and other guidances need edits to make; expected a "
            f"recipe, pairs or {WORLD!r}; name those"
        )
    return asked


def one_task(
    picture: Path, instruction: str, captions: Sequence[str] = (), further: Sequence[Path] = ()
) -> EditTask:
    """Return the edit of one picture, with captions of source and target where they are known."""
    before, after = captions or (None, None)
    others = tuple(further)
    return EditTask(
        picture, instruction, None, before, after, name=picture.name, further_sources=others
    )


def clip_for_bases(bases: Sequence[str]) -> str:
    """Name the CLIP that suits what bases draw: the embedded world has its own."""
    return WORLD if all(base == WORLD for base in bases) else VIT


def clip_for_items(items: Sequence[Item]) -> str:
    """Name the CLIP that suits finished edits: the embedded one for pictures of its size."""
    small = all(max(opened(item.output).size) <= _EMBEDDED_SIDE for item in items[:1])
    return WORLD if small else VIT
