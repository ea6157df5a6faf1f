"""The fourth tab: one source and seed by several adapters and strengths, the base alone beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from customize.editing.edited_picture import Edited
from customize.errors import StudioError
from customize.pairs.decode import load_picture
from customize.scoring.edits.requests import clip_for_bases
from customize.scoring.edits.tasks import EditTask
from customize.scoring.edits.variants import Variant, compared
from customize.scoring.items import Item
from customize.scoring.judging.opinion import JudgedEdit
from customize.scoring.summary import Scored, metrics_shown
from customize.studio import html
from customize.studio.edits import edit_by, source_of
from customize.studio.judged import Finished, opinions
from customize.studio.project import Project
from customize.studio.studio import Studio, choices_of, told

MOST = 24
"""Edits made at one click."""


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project = studio.project
    pairs, *source = _lay_out_source(project)
    adapters, *settings, make = _lay_out_settings()
    results = _lay_out_results(studio)

    def made(
        name: object,
        number: float | None,
        upload: str | None,
        text: str,
        chosen: list[str],
        strengths: list[str],
        seed: float | None,
        steps: float | None,
    ) -> list[Any]:
        """Make every edit, and score it against the source."""
        own = load_picture(Path(upload)) if upload else None
        source = own or source_of(project, name, number)[0]
        options = {"seed": int(seed or 0), "steps": int(steps or 20)}
        found = _edits(studio, EditTask(source, text), chosen or [], strengths or ["1"], options)
        return _shown(source, text, found)

    fields = [pairs, *source, adapters, *settings]
    make.click(told(made), fields, results, show_progress_on=results[0])

    def listed(pairs: object, chosen: list[str] | None) -> list[Any]:
        """List sets and adapters."""
        known = list(project.adapters())
        kept = [label for label in chosen or [] if label in known]
        return [
            choices_of(project.names("pairs"), pairs),
            gr.Dropdown(choices=known, value=kept),
        ]

    studio.shown(listed, [pairs, adapters], [pairs, adapters])


def _lay_out_source(project: Project) -> list[Any]:
    """Lay out set, pair, picture of one's own and instruction, which starts as the pair's."""
    with gr.Row():
        pairs = gr.Dropdown([], label="Source from pairs", elem_id="compare-pairs")
        number = gr.Number(1, label="Pair", precision=0, minimum=1)
        upload = gr.File(label="or a picture of your own", file_types=["image"], height=110)
    instruction = gr.Textbox(label="Instruction", max_length=2000, elem_id="compare-instruction")

    def filled(name: object, number: float | None) -> str:
        """Say what the pair says."""
        return source_of(project, name, number)[1] if name else ""

    gr.on([pairs.change, number.change], told(filled), [pairs, number], instruction)
    return [pairs, number, upload, instruction]


def _lay_out_settings() -> list[Any]:
    """Lay out adapters, strengths, seed, steps, and the button last."""
    with gr.Row():
        return [
            gr.Dropdown([], multiselect=True, label="Adapters", elem_id="compare-adapters"),
            gr.CheckboxGroup(["0.5", "0.75", "1", "1.25", "1.5"], value=["1"], label="Strengths"),
            gr.Number(0, label="Seed", precision=0, minimum=0),
            gr.Number(20, label="Sampling steps", precision=0, minimum=1, maximum=200),
            gr.Button("Compare", variant="primary", elem_id="compare-make"),
        ]


def _lay_out_results(studio: Studio) -> list[Any]:
    """Lay out what `_shown` returns, and have the edits judged where that is asked for."""
    slider = gr.HTML(elem_id="compare-slider")
    grid = gr.HTML(elem_id="compare-grid")
    scores = gr.HTML(elem_id="compare-scores")
    finished = gr.State(None)
    judge = gr.Button("Have them judged", elem_id="compare-judge")
    judged = gr.HTML(elem_id="compare-judged")
    judge.click(told(lambda edits: opinions(studio.judge, edits)), finished, judged)
    return [slider, grid, scores, finished, judged]


def _edits(
    studio: Studio, task: EditTask, chosen: list[str], strengths: list[str], options: Any
) -> list[tuple[str, Edited, Variant]]:
    """Edit by the base alone and by each adapter at each strength; every edit with its label."""
    asked = [(label, strength) for label in chosen for strength in strengths]
    groups = [[(studio.project.adapter(label), float(strength))] for label, strength in asked]
    if len(groups) >= MOST:
        raise StudioError(f"{len(groups) + 1} edits at once; expected {MOST} at most; choose fewer")
    labels = ["base alone", *(f"{label}, strength {strength}" for label, strength in asked)]
    found: list[tuple[str, Edited, Variant]] = []
    for label, variant in zip(labels, compared([], groups), strict=True):
        with studio.editor.lent((), variant.base) as editor:
            found.append((label, edit_by(editor, variant, task, options), variant))
    return found


def _shown(source: Image.Image, text: str, found: list[tuple[str, Edited, Variant]]) -> list[Any]:
    """Show the last edit over the source, all edits and their scores; keep them to be judged."""
    last, edited, _ = found[-1]
    return [
        html.before_after(source, edited.image, f"'{text}' by {last}"),
        html.gallery(
            [html.picture(e.image, f"'{text}' by {label}", label) for label, e, _ in found]
        ),
        _scores(source, text, found),
        [_finished(source, text, *each) for each in found],
        "",
    ]


def _finished(
    source: Image.Image, text: str, label: str, edited: Edited, variant: Variant
) -> Finished:
    return Finished(label, variant.base, JudgedEdit(source, _plain(text, variant), edited.image))


def _scores(source: Image.Image, text: str, found: list[tuple[str, Edited, Variant]]) -> str:
    """Score by the CLIP that suits the base: what was followed, what was kept."""
    from customize.scoring import open_models, score_edits

    models = open_models(clip_for_bases([variant.base for *_, variant in found]))
    items = [
        Item(source, edited.settings.instruction, edited.image, plainly=_plain(text, variant))
        for _, edited, variant in found
    ]
    scored = [
        Scored(label, (item,), score_edits([item], models))
        for (label, *_), item in zip(found, items, strict=True)
    ]
    shown = metrics_shown(scored)
    rows = [
        [one.label, *(metric.written(one.scores.mean(metric.name) or 0.0) for metric in shown)]
        for one in scored
    ]
    return html.table(["edit", *(metric.title for metric in shown)], rows)


def _plain(text: str, variant: Variant) -> str:
    from customize.families.words import replace_words

    return replace_words(text, variant.plain)
