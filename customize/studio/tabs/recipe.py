"""The second tab: what to teach and how, as a form and as YAML, checked before anything loads."""

from __future__ import annotations

from typing import Any

import gradio as gr

from customize.errors import StudioError
from customize.files import write_text
from customize.studio import html
from customize.studio.project import Project
from customize.studio.recipe_form import Form, check_text, memory, yaml_of
from customize.studio.studio import Studio, choices_of, told

CARDS = ("CPU", "6GB", "8GB", "12GB", "16GB", "24GB", "48GB", "80GB")


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project = studio.project
    fields = {**_lay_out_form(project), **_lay_out_more()}
    name, pairs = fields["name"], fields["pairs"]
    text = gr.Code(language="yaml", label="The recipe", lines=12, elem_id="recipe-text")
    faults = gr.HTML(elem_id="recipe-faults")

    def written(*values: Any) -> str:
        """Write the form as YAML; what is empty keeps its usual value."""
        given = {key: value for key, value in zip(fields, values, strict=True) if value is not None}
        return yaml_of(Form(**{"name": "", "pairs": "", **given}))

    def checked(name: str, text: str) -> str:
        """Say what is wrong with the recipe as it stands."""
        return html.faults(check_text(project, name, text)[1], "The recipe is sound.")

    changes, inputs = [field.change for field in fields.values()], [*fields.values()]
    gr.on(changes, written, inputs, text, show_progress="hidden")
    text.change(told(checked), [name, text], faults, show_progress="hidden")
    _use(project, name, text)
    studio.shown(lambda chosen: choices_of(project.names("pairs"), chosen), pairs, pairs)


def _lay_out_form(project: Project) -> dict[str, Any]:
    """Lay out what everyone fills in, by the names of the form's fields."""
    with gr.Row():
        return {
            "name": gr.Textbox(
                "my_concept",
                label="Name",
                info="of the recipe and its run",
                max_length=64,
                elem_id="recipe-name",
            ),
            "pairs": gr.Dropdown(project.names("pairs"), label="Pairs", elem_id="recipe-pairs"),
            "base": gr.Textbox(
                "embedded", label="Base", info="embedded, a hub id or a folder here"
            ),
            "word": gr.Textbox(
                "", label="New word", info="such as <my-dog>; empty for none", max_length=64
            ),
            "steps": gr.Number(200, label="Steps", precision=0, minimum=1, elem_id="recipe-steps"),
        }


def _lay_out_more() -> dict[str, Any]:
    """Lay out what may stay as it is, by the names of the form's fields."""
    with gr.Accordion("More", open=False), gr.Row():
        return {
            "initializer": gr.Textbox("", label="Plain word it starts from", max_length=64),
            "method": gr.Dropdown(
                ["low_rank", "cross_attention_kv"], value="low_rank", label="Method"
            ),
            "rank": gr.Number(8, label="Rank", precision=0, minimum=1),
            "learning_rate": gr.Number(1e-3, label="Learning rate", minimum=0),
            "batch": gr.Number(8, label="Batch", precision=0, minimum=1),
            "preserved": gr.Slider(
                0, 0.9, 0.5, step=0.05, label="Share kept for the base's other edits"
            ),
            "preview_every": gr.Number(
                50, label="Steps between previews", precision=0, minimum=1, elem_id="recipe-every"
            ),
        }


def _use(project: Project, name: Any, text: Any) -> None:
    """Lay out what is done with the recipe: asked for its memory, and saved."""
    with gr.Row():
        card = gr.Dropdown(list(CARDS), value="CPU", label="Memory of the card")
        ask = gr.Button("What memory will it take?", elem_id="recipe-memory")
        save = gr.Button("Save the recipe", variant="primary", elem_id="recipe-save")
    needs = gr.HTML(elem_id="recipe-needs")

    def asked(name: str, text: str, card: str) -> str:
        """Say what memory it takes."""
        recipe, found = check_text(project, name, text)
        if recipe is None:
            return html.faults(found)
        return "".join(html.said(line) for line in memory(recipe, card))

    def saved(name: str, text: str) -> str:
        """Save the recipe where the command line finds it too."""
        recipe, found = check_text(project, name, text)
        if recipe is None:
            raise StudioError(f"the recipe has faults: {'; '.join(map(str, found))}")
        place = write_text(project.place("recipes", name), text)
        relative = place.relative_to(project.root)
        return html.said(f"saved: {relative}; the same as `customize train {relative}`", "good")

    ask.click(told(asked), [name, text, card], needs)
    save.click(told(saved), [name, text], needs)
