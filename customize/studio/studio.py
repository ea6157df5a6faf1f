"""What the tabs of the page share: the project, the open editor, and how faults are told."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from customize.errors import CustomizeError
from customize.studio.judged import Asked
from customize.studio.open_editor import OpenEditor
from customize.studio.project import Project


@dataclass(frozen=True)
class Studio:
    """One page of one project; everything that a click needs besides its own fields.

    `tab` is the one that is laid out; `page` its page where it is the first that one sees.
    """

    project: Project
    editor: OpenEditor
    judge: Asked = field(default_factory=Asked)
    tab: Any = None
    page: Any = None

    def shown(
        self, list_again: Callable[..., Any], inputs: Any, outputs: Any, then: Any = None
    ) -> None:
        """Have the tab list what is on disk whenever it comes to the front."""
        comes = [self.tab.select] if self.page is None else [self.tab.select, self.page.load]
        event = gr.on(comes, list_again, inputs, outputs, show_progress="hidden")
        if then is not None:
            function, options = then
            event.then(function, **options)


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show a fault of the user's as a message on the page, its text escaped."""

    @functools.wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except CustomizeError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from None

    return guarded


def choices_of(names: list[str], chosen: object = None, usual: str | None = None) -> Any:
    """Return an update of a dropdown: what is there, with what was chosen; else `usual`, or the
    first.
    """
    first = usual or (names[0] if names else None)
    return gr.Dropdown(choices=names, value=next((one for one in names if one == chosen), first))
