"""The last tab: two results side by side, unseen which is which; choices that refine an adapter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr
from PIL import Image

from customize.errors import StudioError
from customize.scoring.choices.choice import Won
from customize.scoring.choices.keep import ChoiceFolder, Made
from customize.scoring.choices.win_rate import duels
from customize.scoring.edits.tasks import EditTask
from customize.scoring.edits.variants import Variant, compared
from customize.studio import html, trainer
from customize.studio.edits import edit_by, source_of
from customize.studio.project import Project
from customize.studio.studio import Studio, choices_of, told

BASE = "base alone"


@dataclass(frozen=True)
class Shown:
    """Two results that wait for a choice."""

    source: Image.Image
    instruction: str
    first: Made
    second: Made


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project, folder = studio.project, ChoiceFolder(studio.project.choices)
    *chosen_from, rates = _two_results(studio, folder)
    fields = [*chosen_from, _refining(project)]

    def listed(pairs: object, one: object, other: object, run: object) -> list[Any]:
        """List sets, adapters and runs."""
        adapters = [BASE, *project.adapters()]
        return [
            choices_of(project.names("pairs"), pairs),
            choices_of(adapters, one, usual=adapters[-1]),
            choices_of(adapters, other, usual=adapters[-1]),
            choices_of(project.names("runs"), run),
        ]

    studio.shown(listed, fields, fields, then=(lambda: _rates(folder), {"outputs": rates}))


def _two_results(studio: Studio, folder: ChoiceFolder) -> list[Any]:
    """Lay out two results and the choice; return what they are made from, and who won so far."""
    with gr.Row():
        pairs = gr.Dropdown([], label="Sources from pairs", elem_id="choose-pairs")
        one = gr.Dropdown([], label="One adapter", elem_id="choose-one")
        other = gr.Dropdown([], label="The other; the same for two seeds", elem_id="choose-other")
        steps = gr.Number(20, label="Sampling steps", precision=0, minimum=1, maximum=200)
    begin = gr.Button("Show two results", variant="primary", elem_id="choose-begin")
    waiting = gr.State(None)
    shown = gr.HTML(elem_id="choose-shown")
    with gr.Row(elem_id="choose-buttons"):
        buttons = {
            won: gr.Button(text, elem_id=f"choose-{won}", interactive=False, min_width=120)
            for won, text in (
                ("first", "1: the first is better"),
                ("second", "2: the second is better"),
                ("tie", "=: equally good"),
                ("neither", "x: neither is of use"),
            )
        }
    rates = gr.HTML(elem_id="choose-rates")

    def two(pairs: object, one: object, other: object, steps: float | None) -> list[Any]:
        """Make two results of the next source, in an order that nobody knows."""
        done = len(folder.read())
        made = _make(studio, pairs, (one, other), done, int(steps or 20))
        figures = [
            html.picture(made.source, "the source", f"source: {made.instruction}"),
            html.picture(made.first.edited.image, f"first result of '{made.instruction}'", "1"),
            html.picture(made.second.edited.image, f"second result of '{made.instruction}'", "2"),
        ]
        ready = [gr.Button(interactive=True)] * 4
        return [made, html.gallery(figures), *ready, _rates(folder)]

    def kept(won: Won) -> Any:
        """Return what a button does: keep the choice."""

        def keep(waiting: Shown | None) -> list[Any]:
            if waiting is None:
                raise StudioError("nothing to choose between yet; show two results first")
            folder.add(waiting.source, waiting.instruction, waiting.first, waiting.second, won)
            return [None, *[gr.Button(interactive=False)] * 4]

        return told(keep)

    showing: Any = {
        "fn": told(two),
        "inputs": [pairs, one, other, steps],
        "outputs": [waiting, shown, *buttons.values(), rates],
        "show_progress_on": shown,
    }
    begin.click(**showing)
    for won in get_args(Won):
        chosen = buttons[won].click(
            kept(won), waiting, [waiting, *buttons.values()], show_progress="hidden"
        )
        chosen.success(**showing)
    return [pairs, one, other, rates]


def _refining(project: Project) -> Any:
    """Lay out how a run is refined by the choices; return the field that names the run."""
    with gr.Row():
        run = gr.Dropdown([], label="Run to refine by all choices", elem_id="choose-run")
        how = gr.Dropdown(["pairs", "preference"], value="pairs", label="How")
        count = gr.Number(
            100, label="Steps", precision=0, minimum=1, maximum=2000, elem_id="choose-steps"
        )
        refine = gr.Button("Refine", elem_id="choose-refine")
    said = gr.HTML(elem_id="choose-said")

    def refined(run: object, how: str, count: float | None) -> str:
        """Start what the command line would start."""
        place = project.place("runs", run)
        output = project.place("runs", f"{run}_refined")
        if how not in ("pairs", "preference"):
            raise StudioError(f"how {how!r:.40}: expected pairs or preference")
        words = ["refine", f"runs/{place.name}", "--choices", "choices", "--how", how]
        words += ["--steps", str(int(count or 100)), "-o", f"runs/{output.name}", "--overwrite"]
        trainer.start(output, words, project.root)
        return html.said(f"started: choose {output.name} in Train to watch it")

    refine.click(told(refined), [run, how, count], said)
    return run


def _make(
    studio: Studio, pairs: object, labels: tuple[object, object], done: int, steps: int
) -> Shown:
    """Make two results of one source and seed, or by one adapter from two seeds."""
    project = studio.project
    count = len(project.pair_folder(pairs).pairs())
    source, instruction = source_of(project, pairs, done % max(1, count) + 1)
    seed = 2 * done
    same = labels[0] == labels[1]
    made: list[Made] = []
    for label, start in zip(labels, (seed, seed + same), strict=True):
        variant = _variant(project, label)
        with studio.editor.lent((), variant.base) as editor:
            options = {"seed": start, "steps": steps}
            edited = edit_by(editor, variant, EditTask(source, instruction), options)
        made.append(Made(edited, str(label)))
    random.SystemRandom().shuffle(made)
    return Shown(source, instruction, *made)


def _variant(project: Project, label: object) -> Variant:
    if label == BASE:
        # words that adapters taught are said plainly to the base
        groups = [[(path, 1.0)] for path in project.adapters().values()]
        return compared([], groups)[0]
    return compared([], [[(project.adapter(label), 1.0)]], alone=False)[0]


def _rates(folder: ChoiceFolder) -> str:
    """Say how many choices there are; who won is folded, as it tells which result is whose."""
    choices = folder.read()
    rows = [[d.one, d.other, str(d.won), str(d.lost), str(d.rate or "-")] for d in duels(choices)]
    told = html.said(f"choices so far: {len(choices)}")
    titles = ["one", "other", "one won", "lost", "one is preferred"]
    return told + (html.folded("who won so far", html.table(titles, rows)) if rows else "")
