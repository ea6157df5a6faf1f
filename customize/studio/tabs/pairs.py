"""The first tab: pictures in, pairs seen with what is wrong beside them, mended by a click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from customize.errors import CustomizeError
from customize.families.base import resolve_base
from customize.pairs.lint.pictures import stamp
from customize.recipe import load_recipe
from customize.shapes import Pair
from customize.studio import html
from customize.studio.pair_folder import PairFolder
from customize.studio.project import Project
from customize.studio.studio import Studio, choices_of, told

SHOWN = 6
"""Pairs on one page of the list."""
Change = Callable[[PairFolder, int, str], None]


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project = studio.project
    page = gr.State(0)
    gr.Markdown(
        "Drop pictures two by two, such as `1a.png` and `1b.png`: **a** is the picture before, "
        "**b** the same one edited. Three to five pairs teach one thing."
    )
    with gr.Row():
        name = gr.Dropdown(
            project.names("pairs"),
            label="Set of pairs",
            info="choose one, or write the name of a new one",
            allow_custom_value=True,
            elem_id="pairs-set",
            min_width=240,
        )
        instruction = gr.Textbox(
            label="Instruction of what you add",
            info="what to do to the first picture to get the second",
            max_length=2000,
            elem_id="pairs-instruction",
            min_width=240,
        )
    upload = gr.File(
        label="Pictures",
        file_count="multiple",
        file_types=["image"],
        height=140,
        elem_id="pairs-upload",
    )
    with gr.Accordion("Pairs that are in the project folder already", open=False), gr.Row():
        place = gr.Textbox(label="Folder or table, in any layout", placeholder="examples/data/dog")
        adopt = gr.Button("Add these pairs", elem_id="pairs-adopt")
    said = gr.HTML(elem_id="pairs-said")
    general = gr.HTML(elem_id="pairs-general")
    rows = [_row(number) for number in range(SHOWN)]
    with gr.Row():
        earlier = gr.Button("Earlier pairs", size="sm", visible=False)
        later = gr.Button("Later pairs", size="sm", visible=False)
    shown = [general, *(part for row in rows for part in row), earlier, later]

    def listed(name: object, page: int) -> list[Any]:
        """Return what all rows show."""
        if not name:
            return _nothing("")
        return _list(project, project.pair_folder(name), page)

    def added(name: object, files: list[str] | None, text: str) -> list[Any]:
        """Decode uploads and list the pairs."""
        folder = project.pair_folder(name)
        said = "; ".join(folder.add([Path(file) for file in files or []], text))
        known = choices_of(sorted({*project.names("pairs"), str(name)}), name)
        return [None, html.said(said), known, 0, *_list(project, folder, 0)]

    def adopted(name: object, place: str) -> list[Any]:
        """Take over pairs of the project folder."""
        folder = project.pair_folder(name)
        said = folder.adopt(project.inside(place))
        return [
            html.said(said),
            choices_of(project.names("pairs"), name),
            *_list(project, folder, 0),
        ]

    listing = {"inputs": [name, page], "outputs": shown, "show_progress": "hidden"}
    name.change(lambda: 0, outputs=page).then(told(listed), **listing)
    at: Any = {"show_progress_on": said}
    upload.upload(
        told(added), [name, upload, instruction], [upload, said, name, page, *shown], **at
    )
    adopt.click(told(adopted), [name, place], [said, name, *shown], **at)
    for step, button in ((-1, earlier), (1, later)):
        button.click(lambda page, step=step: page + step, page, page).then(told(listed), **listing)
    for number, row in enumerate(rows):
        _connect(project, number, row, name, page, shown, said)
    studio.shown(
        lambda chosen: _sets(project, chosen),
        name,
        name,
        (told(listed), listing),
    )


def _sets(project: Project, chosen: object) -> Any:
    """List the sets; a name that is being written for a new one stays."""
    names = project.names("pairs")
    return gr.Dropdown(choices=names, value=chosen or names[0]) if names else gr.skip()


def _row(number: int) -> tuple[Any, ...]:
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


def _connect(
    project: Project,
    number: int,
    row: tuple[Any, ...],
    name: Any,
    page: Any,
    shown: list[Any],
    said: Any,
) -> None:
    """Let the row's field and buttons change the pair they show."""
    _, _, text, _, swap, align, word, drop = row

    def changing(change: Change, done: str) -> Callable[..., list[Any]]:
        """Return what a click does: change the pair, and list all anew."""

        def changed(name: object, page: int, text: str) -> list[Any]:
            folder = project.pair_folder(name)
            at = page * SHOWN + number
            change(folder, at, text)
            return [html.said(f"pair {at + 1} {done}"), *_list(project, folder, page)]

        return told(changed)

    def worded(folder: PairFolder, at: int, _: str) -> None:
        """Write the word of the set's recipe into the instruction."""
        if concept := _concept(project, folder.path.name)[1]:
            folder.use_word(at, concept)

    for button, change, done in (
        (swap, lambda folder, at, _: folder.swap(at), "swapped"),
        (align, lambda folder, at, _: folder.align(at), "aligned"),
        (word, worded, "has the concept's word"),
        (drop, lambda folder, at, _: folder.drop(at), "removed"),
    ):
        button.click(
            changing(change, done), [name, page, text], [said, *shown], show_progress_on=said
        )
    saying = changing(lambda folder, at, text: folder.say(at, text), "has its new instruction")
    gr.on(
        [text.submit, text.blur],
        saying,
        [name, page, text],
        [said, *shown],
        show_progress_on=said,
    )


def _list(project: Project, folder: PairFolder, page: int) -> list[Any]:
    """Return what the list shows: updates of the general faults, all rows, and the page buttons."""
    pairs = folder.pairs()
    resolution, word = _concept(project, folder.path.name)
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


def _mends(needed: bool) -> Any:
    return gr.Button(variant="primary" if needed else "secondary")


def _nothing(text: str) -> list[Any]:
    blank: list[Any] = [html.said(text)]
    for _ in range(SHOWN):
        blank += [gr.Row(visible=False), "", "", "", *[gr.Button()] * 4]
    return [*blank, gr.Button(visible=False), gr.Button(visible=False)]


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


def _concept(project: Project, name: str) -> tuple[int, str | None]:
    """Return the resolution and the concept's word of the set's recipe, where there is one."""
    for recipe_name in project.names("recipes"):
        try:
            recipe = load_recipe(project.place("recipes", recipe_name))
        except CustomizeError:
            continue
        for concept in recipe.concepts:
            if (project.root / concept.pairs).resolve() == (
                project.root / "pairs" / name
            ).resolve():
                base = resolve_base(recipe.base.name, recipe.base.revision)
                return recipe.pairs.resolution or base.resolution, concept.word
    return resolve_base("embedded").resolution, None
