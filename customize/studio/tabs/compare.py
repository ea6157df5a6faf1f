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
from customize.studio.studio import Studio, told

MOST = 24
"""Edits made at one click."""


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project = studio.project
    with gr.Row():
        pairs = gr.Dropdown([], label="Source from pairs", elem_id="compare-pairs")
        number = gr.Number(1, label="Pair", precision=0, minimum=1)
        upload = gr.File(label="or a picture of your own", file_types=["image"], height=110)
    instruction = gr.Textbox(label="Instruction", max_length=2000, elem_id="compare-instruction")
    with gr.Row():
        adapters = gr.Dropdown([], multiselect=True, label="Adapters", elem_id="compare-adapters")
        strengths = gr.CheckboxGroup(
            ["0.5", "0.75", "1", "1.25", "1.5"], value=["1"], label="Strengths"
        )
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        steps = gr.Number(20, label="Sampling steps", precision=0, minimum=1, maximum=200)
        make = gr.Button("Compare", variant="primary", elem_id="compare-make")
    slider = gr.HTML(elem_id="compare-slider")
    grid = gr.HTML(elem_id="compare-grid")
    scores = gr.HTML(elem_id="compare-scores")
    finished = gr.State(None)
    judge = gr.Button("Have them judged", elem_id="compare-judge")
    judged = gr.HTML(elem_id="compare-judged")

    def filled(name: object, number: float | None) -> str:
        """Say what the pair says."""
        return source_of(project, name, number)[1] if name else ""

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
        groups = [
            [(project.adapter(label), float(strength))]
            for label in chosen or []
            for strength in strengths or ["1"]
        ]
        if len(groups) >= MOST:
            raise StudioError(
                f"{len(groups) + 1} edits at once; expected {MOST} at most; choose fewer"
            )
        names = [f"{a}, strength {s}" for a in chosen or [] for s in strengths or ["1"]]
        task = EditTask(source, text)
        options = {"seed": int(seed or 0), "steps": int(steps or 20)}
        found: list[tuple[str, Edited, Variant]] = []
        for label, variant in zip(["base alone", *names], compared([], groups), strict=True):
            found.append((label, *_one(studio, variant, task, options)))
        last = found[-1][1].image
        return [
            html.before_after(source, last, f"'{text}' by {found[-1][0]}"),
            html.gallery(
                [html.picture(e.image, f"'{text}' by {label}", label) for label, e, _ in found]
            ),
            _scores(source, text, found),
            [_finished(source, text, *each) for each in found],
            "",
        ]

    gr.on([pairs.change, number.change], told(filled), [pairs, number], instruction)
    make.click(
        told(made),
        [pairs, number, upload, instruction, adapters, strengths, seed, steps],
        [slider, grid, scores, finished, judged],
        show_progress_on=slider,
    )
    judge.click(told(lambda edits: opinions(studio.judge, edits)), finished, judged)

    def listed(pairs: object, chosen: list[str] | None) -> list[Any]:
        """List sets and adapters."""
        sets, known = project.names("pairs"), list(project.adapters())
        kept = [label for label in chosen or [] if label in known]
        value = pairs if pairs in sets else (sets[0] if sets else None)
        return [gr.Dropdown(choices=sets, value=value), gr.Dropdown(choices=known, value=kept)]

    studio.shown(listed, [pairs, adapters], [pairs, adapters])


def _one(studio: Studio, variant: Variant, task: EditTask, options: Any) -> tuple[Edited, Variant]:
    with studio.editor.lent((), variant.base) as editor:
        return edit_by(editor, variant, task, options), variant


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
