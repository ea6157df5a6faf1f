"""One point of a sweep over both guidances: edits made at it, and how far they went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from customize.editing import Editor
from customize.editing.options import EditOptions, check_request
from customize.errors import ScoreError
from customize.scoring.edits.make import edit_tasks
from customize.scoring.edits.tasks import EditTask
from customize.scoring.items import MetricName, Models
from customize.scoring.metrics.score import score_edits

Against = Literal["captions", "instructions"]


@dataclass(frozen=True)
class Point:
    """Mean similarities at one setting, with standard errors (None for a single edit).

    `direction` says how much of the edit was done and `image` how much of the source is left, both
    -1 to 1. The direction is measured against captions, or against the instructions themselves
    where no edit has two that differ.
    """

    text_guidance: float
    image_guidance: float
    direction: float
    image: float
    direction_error: float | None
    image_error: float | None
    count: int
    against: Against


def measurable(tasks: Sequence[EditTask]) -> tuple[Sequence[EditTask], Against]:
    """Return the tasks that all numbers are taken of, and what directions are measured against.

    Those with two captions that differ, where there are any: direction and similarity are then of
    the same edits.
    """
    captioned = [
        task
        for task in tasks
        if task.source_caption
        and task.target_caption
        and task.source_caption != task.target_caption
    ]
    return (captioned, "captions") if captioned else (tasks, "instructions")


def left_out(points: Iterable[Point], tasks: Sequence[EditTask]) -> str | None:
    """Say how many of the tasks the points are not of, None where they are of all."""
    missing = len(tasks) - min(point.count for point in points)
    if not missing:
        return None
    return f"{missing} of {len(tasks)} edits are left out, since they lack two captions that differ"


def distinct(guidances: Sequence[float]) -> list[float]:
    """Return guidances in rising order, each once."""
    return sorted(set(guidances))


def check_settings(
    tasks: Sequence[EditTask], guidances: Sequence[tuple[float, float]], options: EditOptions
) -> None:
    """Refuse a sweep that would stop halfway; raises ScoreError without tasks, and EditError.

    `guidances` are pairs of text and image guidance.
    """
    if not tasks:
        raise ScoreError("no edits to make; expected at least one; name a folder with pairs")
    for text, image in guidances:
        given: Any = {**options, "text_guidance": text, "image_guidance": image}
        check_request([task.instruction for task in tasks], given)


def measure(
    editor: Editor,
    tasks: Sequence[EditTask],
    models: Models,
    text_guidance: float,
    image_guidance: float,
    options: EditOptions,
    *,
    at_once: int = 8,
) -> Point:
    """Make the tasks' edits at one setting and score them; raises EditError and PairsError.

    Only those that `measurable` keeps are made.
    """
    tasks, against = measurable(tasks)
    given: Any = {**options, "text_guidance": text_guidance, "image_guidance": image_guidance}
    items = edit_tasks(editor, tasks, given, at_once=at_once)
    metric: MetricName = "clip_direction" if against == "captions" else "clip_instruction"
    scores = score_edits(items, models, [metric, "clip_image"], at_once=at_once)
    direction, image = scores.mean(metric), scores.mean("clip_image")
    assert direction is not None
    assert image is not None
    return Point(
        text_guidance=text_guidance,
        image_guidance=image_guidance,
        direction=direction,
        image=image,
        direction_error=scores.error(metric),
        image_error=scores.error("clip_image"),
        count=len(items),
        against=against,
    )
