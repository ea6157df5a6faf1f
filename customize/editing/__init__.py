"""Edits: a picture and an instruction in, a picture out that carries its settings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from customize.editing.editor import Editor

__all__ = ["Editor"]


def __getattr__(name: str) -> Any:
    """Load torch only when an editor is asked for: names of output files need none."""
    if name != "Editor":
        raise AttributeError(name)
    from customize.editing.editor import Editor

    return Editor
