"""The first tab: pictures in, pairs seen with what is wrong beside them, mended by a click."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from customize.studio import html
from customize.studio.pair_folder import PairFolder
from customize.studio.project import Project
from customize.studio.studio import Studio, choices_of, told
from customize.studio.tabs.pair_rows import SHOWN, concept_of, lay_out_row, list_none, list_pairs

Change = Callable[[PairFolder, int, str], None]


@dataclass(frozen=True)
class Listing:
    """The list of pairs: the fields that name its set and page, all that it `shows`, and where
    what became of a change is `said`.
    """

    name: Any
    page: Any
    said: Any
    shows: list[Any]


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project, page = studio.project, gr.State(0)
    gr.Markdown(
        "Drop pictures two by two, such as `1a.png` and `1b.png`: **a** is the picture before, "
        "**b** the same one edited. Three to five pairs teach one thing."
    )
    name, *adding = _lay_out_adding(project)
    with gr.Accordion("Pairs that are in the project folder already", open=False), gr.Row():
        place = gr.Textbox(label="Folder or table, in any layout", placeholder="examples/data/dog")
        adopt = gr.Button("Add these pairs", elem_id="pairs-adopt")
    said = gr.HTML(elem_id="pairs-said")
    general = gr.HTML(elem_id="pairs-general")
    rows = [lay_out_row(number) for number in range(SHOWN)]
    with gr.Row():
        earlier = gr.Button("Earlier pairs", size="sm", visible=False)
        later = gr.Button("Later pairs", size="sm", visible=False)
    shows = [general, *(part for row in rows for part in row), earlier, later]
    listing = Listing(name, page, said, shows)
    _list(studio, listing, earlier, later)
    _add(project, listing, *adding)
    _adopt(project, listing, place, adopt)
    for number, row in enumerate(rows):
        _mend(project, number, row, listing)


def _lay_out_adding(project: Project) -> tuple[Any, Any, Any]:
    """Lay out the set, the instruction of what is added, and the place to drop it."""
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
    return name, instruction, upload


def _list(studio: Studio, listing: Listing, earlier: Any, later: Any) -> None:
    """List a set whenever another is chosen, or another page, or the tab comes to the front."""
    project, name, page = studio.project, listing.name, listing.page

    def listed(name: object, page: int) -> list[Any]:
        """Return what all rows show."""
        if not name:
            return list_none()
        return list_pairs(project, project.pair_folder(name), page)

    shown = {"inputs": [name, page], "outputs": listing.shows, "show_progress": "hidden"}
    name.change(lambda: 0, outputs=page).then(told(listed), **shown)
    for step, button in ((-1, earlier), (1, later)):
        button.click(lambda page, step=step: page + step, page, page).then(told(listed), **shown)
    studio.shown(lambda chosen: _sets(project, chosen), name, name, (told(listed), shown))


def _add(project: Project, listing: Listing, instruction: Any, upload: Any) -> None:
    """Take in the pictures that are dropped."""

    def added(name: object, files: list[str] | None, text: str) -> list[Any]:
        """Decode uploads and list the pairs."""
        folder = project.pair_folder(name)
        said = "; ".join(folder.add([Path(file) for file in files or []], text))
        known = choices_of(sorted({*project.names("pairs"), str(name)}), name)
        return [None, html.said(said), known, 0, *list_pairs(project, folder, 0)]

    upload.upload(
        told(added),
        [listing.name, upload, instruction],
        [upload, listing.said, listing.name, listing.page, *listing.shows],
        show_progress_on=listing.said,
    )


def _adopt(project: Project, listing: Listing, place: Any, adopt: Any) -> None:
    """Take in pairs that lie elsewhere in the project folder."""

    def adopted(name: object, place: str) -> list[Any]:
        """Take over pairs of the project folder."""
        folder = project.pair_folder(name)
        said = folder.adopt(project.inside(place))
        known = choices_of(project.names("pairs"), name)
        return [html.said(said), known, *list_pairs(project, folder, 0)]

    adopt.click(
        told(adopted),
        [listing.name, place],
        [listing.said, listing.name, *listing.shows],
        show_progress_on=listing.said,
    )


def _sets(project: Project, chosen: object) -> Any:
    """List the sets; a name that is being written for a new one stays."""
    names = project.names("pairs")
    return gr.Dropdown(choices=names, value=str(chosen or names[0])) if names else gr.skip()


def _mend(project: Project, number: int, row: tuple[Any, ...], listing: Listing) -> None:
    """Let the row's field and buttons change the pair they show."""
    _, _, text, _, swap, align, word, drop = row

    def changing(change: Change, done: str) -> Callable[..., list[Any]]:
        """Return what a click does: change the pair, and list all anew."""

        def changed(name: object, page: int, text: str) -> list[Any]:
            folder = project.pair_folder(name)
            at = page * SHOWN + number
            change(folder, at, text)
            return [html.said(f"pair {at + 1} {done}"), *list_pairs(project, folder, page)]

        return told(changed)

    def worded(folder: PairFolder, at: int, _: str) -> None:
        """Write the word of the set's recipe into the instruction."""
        if concept := concept_of(project, folder.path.name)[1]:
            folder.use_word(at, concept)

    at: Any = {
        "inputs": [listing.name, listing.page, text],
        "outputs": [listing.said, *listing.shows],
        "show_progress_on": listing.said,
    }
    for button, change, done in (
        (swap, lambda folder, at, _: folder.swap(at), "swapped"),
        (align, lambda folder, at, _: folder.align(at), "aligned"),
        (word, worded, "has the concept's word"),
        (drop, lambda folder, at, _: folder.drop(at), "removed"),
    ):
        button.click(changing(change, done), **at)
    saying = changing(lambda folder, at, text: folder.say(at, text), "has its new instruction")
    gr.on([text.submit, text.blur], saying, **at)
