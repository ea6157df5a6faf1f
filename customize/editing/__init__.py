"""Edits: a picture and an instruction in, a picture out that carries its settings."""

from customize.editing.editor import Editor

__all__ = ["Editor"]
