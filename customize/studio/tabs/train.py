"""The third tab: training in a process of its own, watched through the run's folder."""

from __future__ import annotations

from typing import Any

import gradio as gr

from customize.errors import FaultsError, StudioError
from customize.pairs.decode import load_picture
from customize.studio import html, trainer
from customize.studio.recipe_form import check_text
from customize.studio.studio import Studio, choices_of, told

EVERY = 2.0
"""Seconds between two looks, while something trains; otherwise nobody looks."""


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project = studio.project
    with gr.Row():
        name = gr.Dropdown([], label="Recipe or run", elem_id="train-name")
        start = gr.Button("Start, or go on", variant="primary", elem_id="train-start")
        stop = gr.Button("Stop and save", variant="stop", elem_id="train-stop")
    said = gr.HTML(elem_id="train-said")
    state = gr.HTML(elem_id="train-state")
    preview = gr.HTML(elem_id="train-preview")
    clock = gr.Timer(EVERY, active=False)
    seen = gr.State("")

    def looked(name: object, seen: str) -> list[Any]:
        """Show how the run stands; the preview is sent again only when there is a new one."""
        if not name:
            return [html.said("Save a recipe first."), "", gr.Timer(active=False), ""]
        now = trainer.progress(project.place("runs", name))
        shown: Any = gr.skip()
        path = str(now.preview or "")
        if path != seen:
            shown = ""
            if now.preview is not None:
                says = "source, instruction, before, after and target of some edits, row by row"
                sheet = load_picture(now.preview)
                shown = html.picture(sheet, f"preview: {says}", now.preview.stem, side=1600)
        return [html.progress(now), shown, gr.Timer(active=now.running), path]

    def started(name: object) -> list[Any]:
        """Start what the command line would start."""
        place = project.place("recipes", name)
        if not place.is_file():
            raise StudioError(f"no recipe is called {name}; expected a saved one; save it first")
        recipe, found = check_text(project, str(name), place.read_text("utf-8"))
        if recipe is None:
            raise FaultsError(f"recipe {place.name}", found)
        folder = project.root / recipe.output
        words = ["train", str(place.relative_to(project.root))]
        trainer.start(project.inside(str(folder.relative_to(project.root))), words, project.root)
        return [html.said("started; you may close this page, it goes on"), gr.Timer(active=True)]

    def stopped(name: object) -> str:
        """Ask for an end."""
        return html.said(trainer.stop(project.place("runs", name)))

    def listed(chosen: object) -> Any:
        """List recipes and runs."""
        return choices_of(sorted({*project.names("recipes"), *project.names("runs")}), chosen)

    looking = {"inputs": [name, seen], "outputs": [state, preview, clock, seen]}
    quiet: Any = {**looking, "show_progress": "hidden"}
    clock.tick(told(looked), **quiet)
    name.change(lambda: "\0", outputs=seen).then(told(looked), **quiet)
    start.click(told(started), name, [said, clock], show_progress_on=said)
    stop.click(told(stopped), name, said)
    studio.shown(listed, name, name, then=(told(looked), quiet))
