"""The recipe as a form: fields to YAML, and YAML checked as it is typed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from customize.errors import CustomizeError, Fault, FaultsError
from customize.files.spelling import resolved
from customize.pairs.find import find_pairs
from customize.recipe import Recipe, load_recipe
from customize.studio.project import Project


@dataclass(frozen=True)
class Form:
    """What the form says; `name` is of the recipe, its run and its concept."""

    name: str
    pairs: str
    base: str = "embedded"
    word: str = ""
    initializer: str = ""
    method: str = "low_rank"
    steps: int = 200
    rank: int = 8
    learning_rate: float = 1e-3
    batch: int = 8
    preserved: float = 0.5
    preview_every: int = 50


def yaml_of(form: Form) -> str:
    """Write the form as a recipe; texts are quoted, whatever is in them."""
    word = [f"    word: {_text(form.word)}"] if form.word.strip() else []
    if form.initializer.strip():
        word.append(f"    initializer: {_text(form.initializer)}")
    adapter = [f"adapter:\n  method: {_text(form.method)}"]
    if form.method == "low_rank":
        adapter += [f"  rank: {form.rank}", "  targets: [attention, convolutions, feed_forward]"]
    lines = [
        f"base: {_text(form.base)}",
        "concepts:",
        f"  - name: {_text(form.name)}",
        *word,
        f"    pairs: {_text(f'../pairs/{form.pairs}' if form.pairs.strip() else '')}",
        *adapter,
        "train:",
        f"  steps: {form.steps}",
        f"  batch: {form.batch}",
        f"  learning_rate: {form.learning_rate:g}",
        "preservation:",
        f"  share: {form.preserved:g}",
        "preview:",
        f"  every: {form.preview_every}",
        f"output: {_text(f'runs/{form.name}')}",
    ]
    return "\n".join(lines) + "\n"


def check_text(project: Project, name: str, text: str) -> tuple[Recipe | None, list[Fault]]:
    """Return the recipe that `text` is when it is saved as `name`, and every fault it has.

    A run outside of the project folder is a fault. Nothing stays on disk.
    """
    place = project.place("recipes", name)
    draft = place.with_name(f".{name}.{os.getpid()}.draft.yaml")
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.write_text(text, encoding="utf-8")
        recipe = load_recipe(draft)
        outside = _outside(project, recipe)
        return (None if outside else recipe), outside
    except FaultsError as error:
        said = [(fault.place.replace(str(draft), place.name), fault) for fault in error.faults]
        return None, [Fault(where, fault.found, fault.cure, fault.level) for where, fault in said]
    except CustomizeError as error:
        return None, [Fault(place.name, str(error), "correct it")]
    finally:
        draft.unlink(missing_ok=True)


def memory(recipe: Recipe, card: str) -> list[str]:
    """Say what memory the run takes on a card such as `8GB`, before anything is loaded."""
    from customize.training.check import check_recipe
    from customize.training.memory.advice import advise
    from customize.training.memory.card import card_bytes
    from customize.training.memory.workload import load_of
    from customize.training.plan import plan_run

    checked = check_recipe(recipe)
    if checked.has_errors:
        return [str(fault) for fault in checked.faults if fault.level == "error"]
    room = card_bytes(card) if card != "CPU" else None
    plan = plan_run(recipe, lambda _: None, checked)
    return advise(load_of(plan, "cpu" if room is None else "cuda"), room)


def _outside(project: Project, recipe: Recipe) -> list[Fault]:
    """List the recipe's paths that lead out of the project: the page may not reach there."""
    others = recipe.preservation.regularization_pairs, recipe.preview.images
    paths = {
        "output": recipe.output,
        **{f"concepts.{i}.pairs": each.pairs for i, each in enumerate(recipe.concepts)},
        "preservation.regularization_pairs": others[0],
        "preview.images": others[1],
    }
    if isinstance(recipe.preservation.instructions, Path):
        paths["preservation.instructions"] = recipe.preservation.instructions
    if os.path.exists(recipe.base.name):
        paths["base"] = Path(recipe.base.name)
    cure = "copy it into the project"
    return [
        Fault(place, f"{found} is outside of the project folder", cure)
        for place, path in paths.items()
        if path is not None
        for found in _reached(project.root / path, pictures=place != "output")
        if not resolved(found).is_relative_to(project.root)
    ]


def _reached(path: Path, *, pictures: bool) -> list[Path]:
    """List a path and the pictures of the pairs there: a table may name any."""
    if not pictures:
        return [path]
    try:
        found = find_pairs(path).pairs
    except CustomizeError:
        return [path]  # no pairs, or faults that are told elsewhere
    return [path, *(each for pair in found for each in (pair.source, pair.target))]


def _text(text: str) -> str:
    """Quote a text: JSON's strings are YAML's too."""
    return json.dumps(text.strip())
