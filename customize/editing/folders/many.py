"""Edit many pictures without a folder to write to: what `Editor.edit_many` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from customize.editing.edited_picture import Edited
from customize.editing.folders.group import Answer, finished
from customize.editing.folders.items import Item
from customize.editing.folders.plan import Edit, How, pictures_at_once, plan_edits, together
from customize.editing.folders.run import Read, fault_of, made_in_turn
from customize.editing.options import EditOptions
from customize.editing.photograph import Photograph
from customize.errors import CustomizeError, Fault

if TYPE_CHECKING:
    from customize.editing import Editor


def edit_many(
    editor: Editor,
    items: Iterable[Item],
    how: How | None,
    at_once: int | None,
    options: EditOptions,
) -> Iterator[tuple[Item, Edited | Fault]]:
    """Plan all items, then yield those that cannot be edited and all others as they are made."""
    listed = list(items)
    texts = dict.fromkeys(text for item in listed for text in item.instructions)
    editor.prepare(list(texts), options)
    edits: list[Edit] = []
    for item, planned in zip(
        listed, plan_edits(editor, listed, options, how or How()), strict=True
    ):
        if isinstance(planned, Fault):
            yield item, planned
        else:
            edits.append(planned)
    groups = together(edits, at_once or pictures_at_once(editor))
    yield from made_in_turn(editor, groups, set(edits), _finish)


def _finish(edit: Edit, read: Read, answer: Answer | CustomizeError) -> tuple[Item, Edited | Fault]:
    if isinstance(answer, CustomizeError):
        return edit.item, fault_of(edit.item.place, answer)
    assert isinstance(read.photograph, Photograph)
    return edit.item, finished(answer, read.photograph, edit)
