"""The rows of the first tab: one for each pair, with what is wrong and the buttons that mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from customize.errors import CustomizeError
from customize.families.base import resolve_base
from customize.files.spelling import resolved
from customize.pairs.lint.pictures import stamp
from customize.recipe import load_recipe
from customize.shapes import Pair
from customize.studio import html
from customize.studio.pair_folder import PairFolder
from customize.studio.project import Project

SHOWN = 6
"""Pairs on one page of the list."""


def lay_out_row(number: int) -> tuple[Any, ...]:
    """Lay out one pair: pictures, instruction, faults, and the buttons that mend it."""
    with gr.Row(visible=False, elem_id=f"pair-{number}", elem_classes="pair") as group:
        with gr.Column(scale=2, min_width=300):
            pictures = gr.HTML()
        with gr.Column(scale=3, min_width=300):
            said = gr.Textbox(
                label=f"Instruction {number + 1}", max_length=2000, elem_id=f"pair-{number}-said"
            )
            faults = gr.HTML(elem_id=f"pair-{number}-faults")
            with gr.Row():
                buttons = [
                    gr.Button(text, size="sm", min_width=110, elem_id=f"pair-{number}-{key}")
                    for key, text in (
                        ("swap", "Swap the two"),
                        ("align", "Align"),
                        ("word", "Write the word"),
                        ("drop", "Remove"),
                    )
                ]
    return group, pictures, said, faults, *buttons


def list_pairs(project: Project, folder: PairFolder, page: int) -> list[Any]:
    """Return what the list shows: updates of the general faults, all rows, and the page buttons."""
    pairs = folder.pairs()
    resolution, word = concept_of(project, folder.path.name)
    found, rest = folder.faults(resolution, word)
    updates: list[Any] = [html.faults(rest, "All pairs together: nothing to complain of.")]
    for number in range(page * SHOWN, (page + 1) * SHOWN):
        if number >= len(pairs):
            updates += [gr.Row(visible=False), "", "", "", *[gr.Button()] * 4]
            continue
        pair, faults = pairs[number], found.get(number, [])
        texts = " ".join(fault.found for fault in faults)
        updates += [
            gr.Row(visible=True),
            _pictures(pair),
            gr.Textbox(value=pair.instruction, label=f"Instruction {number + 1}"),
            html.faults(faults, "looks right"),
            _mends("reversed" in texts),
            _mends("source is" in texts),
            gr.Button(
                visible=word is not None, variant="primary" if "word" in texts else "secondary"
            ),
            _mends("the same pair" in texts or "same picture" in texts),
        ]
    more = len(pairs) > (page + 1) * SHOWN
    return [*updates, gr.Button(visible=page > 0), gr.Button(visible=more)]


def list_none() -> list[Any]:
    """Return the same updates where there is no set."""
    blank: list[Any] = [html.said("")]
    for _ in range(SHOWN):
        blank += [gr.Row(visible=False), "", "", "", *[gr.Button()] * 4]
    return [*blank, gr.Button(visible=False), gr.Button(visible=False)]


def concept_of(project: Project, name: str) -> tuple[int, str | None]:
    """Return the resolution and the concept's word of the set's recipe, where there is one."""
    for recipe_name in project.names("recipes"):
        try:
            recipe = load_recipe(project.place("recipes", recipe_name))
        except CustomizeError:
            continue
        for concept in recipe.concepts:
            if resolved(project.root / concept.pairs) == resolved(project.root / "pairs" / name):
                base = resolve_base(recipe.base.name, recipe.base.revision)
                return recipe.pairs.resolution or base.resolution, concept.word
    return resolve_base("embedded").resolution, None


def _mends(needed: bool) -> Any:
    return gr.Button(variant="primary" if needed else "secondary")


def _pictures(pair: Pair) -> str:
    """Show source and edited picture, or why one cannot be shown."""
    figures = [
        _picture(
            pair.source, f"before: the picture to which '{pair.instruction}' is said", "before"
        ),
        _picture(
            pair.target, f"after: the same picture once '{pair.instruction}' is done", "after"
        ),
    ]
    return html.gallery(figures)


def _picture(path: Path, says: str, caption: str) -> str:
    try:
        return html.figure(html.small_url(path, stamp(path)), says, caption)
    except CustomizeError as error:
        return html.said(f"{caption}: {error}", "bad")
