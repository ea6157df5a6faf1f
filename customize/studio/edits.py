"""Edits that the page asks for: sources by name, and one task by one variant."""

from __future__ import annotations

from typing import Any

from PIL import Image

from customize.editing import Editor
from customize.editing.edited_picture import Edited
from customize.errors import StudioError
from customize.pairs.decode import load_picture
from customize.scoring.choices.fill import edited_by
from customize.scoring.edits.tasks import EditTask
from customize.scoring.edits.variants import Variant
from customize.studio.project import Project


def source_of(project: Project, name: object, number: float | None) -> tuple[Image.Image, str]:
    """Return the source and the instruction of a pair, counted from 1; raises StudioError."""
    pairs = project.pair_folder(name).pairs()
    place = int(number or 1) - 1
    if not 0 <= place < len(pairs):
        raise StudioError(f"pair {place + 1} of {name}: expected 1 to {len(pairs)}; choose another")
    return load_picture(pairs[place].source), pairs[place].instruction


def edit_by(editor: Editor, variant: Variant, task: EditTask, options: Any) -> Edited:
    """Make one edit with the editor, which has the variant's base open."""
    return edited_by(editor, variant, [task], options)[0]
