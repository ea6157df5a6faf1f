"""What `fast` costs and saves, measured on the first pictures of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from customize.editing.controlled import ready_for_many
from customize.editing.folders.group import Answer, Group, make_group
from customize.editing.folders.run import read
from customize.errors import CustomizeError

if TYPE_CHECKING:
    from customize.editing import Editor

MOST_PICTURES = 4


@dataclass(frozen=True)
class Cost:
    """How near fast answers are to exact ones, median PSNR in dB, and how many times as quick."""

    pictures: int
    decibels: float
    times: float

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"fast: {self.decibels:.1f} dB to exact (median of the first {self.pictures}), "
            f"sampled {self.times:.1f} times as fast"
        )


def cost_of_fast(editor: Editor, group: Group) -> Cost | None:
    """Make the first pictures of a group both ways; None where none of them can be read."""
    group = group[:MOST_PICTURES]
    seconds, made = list[float](), list[list[np.ndarray]]()
    editor.scale(group[0].item.strength)
    try:
        with ready_for_many(editor.pipeline):
            for fast in (True, False, True):  # the first warms up, and does not count
                same = tuple(
                    replace(edit, settings=replace(edit.settings, fast=fast)) for edit in group
                )
                photographs = {edit: read(edit.item.image).photograph for edit in same}
                start = time.perf_counter()
                answers = make_group(editor, same, photographs)
                seconds.append(time.perf_counter() - start)
                made.append([_pixels(answers[edit]) for edit in same])
    finally:
        editor.scale(1.0)
    _, exact, quick = made
    errors = [
        float(np.mean((one - other) ** 2))
        for one, other in zip(exact, quick, strict=True)
        if one.size
    ]
    if not errors:
        return None
    decibels = float(np.median([10 * np.log10(255**2 / max(error, 0.065)) for error in errors]))
    return Cost(len(errors), decibels, seconds[1] / seconds[2])


def _pixels(answer: Answer | CustomizeError) -> np.ndarray:
    """Return an answer's pixels, none for an error."""
    if isinstance(answer, CustomizeError):
        return np.empty(0)
    return np.asarray(answer.image, dtype=np.float64)
