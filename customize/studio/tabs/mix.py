"""The fifth tab: adapters together by sliders, merged into one, exported for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from customize.adapters.file import read_adapter
from customize.errors import StudioError
from customize.exporting import TARGETS, export, export_all
from customize.families.base import resolve_base
from customize.scoring.edits.tasks import EditTask
from customize.scoring.edits.variants import compared
from customize.studio import html
from customize.studio.edits import edit_by, source_of
from customize.studio.mixing import METHODS, merge_into
from customize.studio.project import Project
from customize.studio.studio import Studio, choices_of, told
from customize.training.run_folder import RunFolder

SLOTS = 3
NONE = "(none)"
EVERY_TARGET = "all, with the guide"


def build(studio: Studio) -> None:
    """Lay the tab out and connect it."""
    project = studio.project
    taken = gr.Dropdown([], label="Adapter to take along", elem_id="mix-taken", render=False)
    pairs, slots = _look(studio)
    _merge(project, slots, taken)
    _export(project, taken)

    def listed(pairs: object, taken: object, *chosen: object) -> list[Any]:
        """List sets and adapters."""
        known = list(project.adapters())
        return [
            choices_of(project.names("pairs"), pairs),
            choices_of(known, taken),
            *(choices_of([NONE, *known], label) for label in chosen),
        ]

    dropdowns = slots[::2]
    studio.shown(listed, [pairs, taken, *dropdowns], [pairs, taken, *dropdowns])


def _look(studio: Studio) -> tuple[Any, list[Any]]:
    """Lay out adapters with their strengths, and an edit by all of them; return both fields."""
    project = studio.project
    with gr.Row():
        pairs = gr.Dropdown([], label="Source from pairs", elem_id="mix-pairs")
        number = gr.Number(1, label="Pair", precision=0, minimum=1)
        instruction = gr.Textbox(label="Instruction", max_length=2000, elem_id="mix-instruction")
    slots: list[Any] = []
    with gr.Row():
        for slot in range(SLOTS):
            with gr.Column(min_width=200):
                slots += [
                    gr.Dropdown(
                        [NONE], value=NONE, label=f"Adapter {slot + 1}", elem_id=f"mix-{slot}"
                    ),
                    gr.Slider(0, 2, 1, step=0.05, label=f"Strength {slot + 1}"),
                ]
    look = gr.Button("Look", variant="primary", elem_id="mix-look")
    shown = gr.HTML(elem_id="mix-shown")

    def looked(name: object, number: float | None, text: str, *values: Any) -> str:
        """Edit by all of them together, from one seed, the source beside."""
        source, said = source_of(project, name, number)
        group, text = _chosen(project, values), text.strip() or said
        variant = compared([], [group], alone=not group)[0] if group else compared([], [])[0]
        with studio.editor.lent((), variant.base) as editor:
            edited = edit_by(editor, variant, EditTask(source, text), {"seed": 0})
        says = f"'{text}' by {variant.label}"
        return html.gallery(
            [html.picture(source, "the source", "source"), html.picture(edited.image, says, says)]
        )

    events, inputs = [look.click, *(slider.release for slider in slots[1::2])], [pairs, number]
    gr.on(events, told(looked), [*inputs, instruction, *slots], shown)
    return pairs, slots


def _merge(project: Project, slots: list[Any], taken: Any) -> None:
    """Lay out the merge of the adapters chosen, which is then the one to take along."""
    with gr.Row():
        method = gr.Dropdown(list(METHODS), value="constrained", label="Merge by")
        name = gr.Textbox("mixed", label="Name of the merged adapter", max_length=64)
        report = gr.Checkbox(False, label="with a report of what each concept kept (slow)")
        merge = gr.Button("Merge into one", elem_id="mix-merge")
    merged = gr.HTML(elem_id="mix-merged")

    def merging(method: str, name: str, report: bool, *values: Any) -> list[Any]:
        """Merge them into a run of their own, which other tabs then list."""
        group = _chosen(project, values)
        if len(group) < 2:
            raise StudioError("fewer than two adapters; expected two or three; choose them above")
        output = RunFolder(project.place("runs", name)).adapter
        rows = merge_into(group, output, method, output.parent / "report" if report else None)
        known = list(project.adapters())
        return [
            html.said(f"merged: {output.relative_to(project.root)}", "good")
            + html.table(["", ""], rows),
            choices_of(known, name),
        ]

    merge.click(
        told(merging), [method, name, report, *slots], [merged, taken], show_progress_on=merged
    )


def _export(project: Project, taken: Any) -> None:
    """Lay out the adapter to take along, and its files for other programs."""
    with gr.Row():
        taken.render()
        target = gr.Dropdown([*TARGETS, EVERY_TARGET], value="kohya", label="For")
        button = gr.Button("Export", elem_id="mix-export")
    exported = gr.HTML(elem_id="mix-exported")
    files = gr.File(
        label="Files to download",
        height=140,
        file_count="multiple",
        interactive=False,
        elem_id="mix-files",
    )

    def exporting(label: object, target: str) -> list[Any]:
        """Write the files other programs read, checked as the command line checks them."""
        path = project.adapter(label)
        adapter = read_adapter(path)
        base = resolve_base(adapter.header.base_name)
        if target == EVERY_TARGET:
            folder = path.parent / "exports" / "all"
            made = export_all(adapter, base, folder, overwrite=True, verify=False)
            paths = [made.guide, *(one.files[0] for one in made.written)]
            notes = [f"{made.guide.name}: which file goes where"]
        elif target in TARGETS:
            folder = path.parent / "exports" / target
            one = export(adapter, base, TARGETS[TARGETS.index(target)], folder, overwrite=True)
            paths, notes = [*one.files], [*one.notes]
        else:
            raise StudioError(f"target {target!r:.40}: expected one of {', '.join(TARGETS)}")
        lines = [f"in {folder.relative_to(project.root)}", *notes]
        return ["".join(map(html.said, lines)), [str(each) for each in paths if each.is_file()]]

    button.click(told(exporting), [taken, target], [exported, files], show_progress_on=exported)


def _chosen(project: Project, values: tuple[Any, ...]) -> list[tuple[Path, float]]:
    """Return the adapters chosen, with their strengths."""
    slots = zip(values[::2], values[1::2], strict=True)
    return [(project.adapter(label), float(s)) for label, s in slots if label not in (None, NONE)]
