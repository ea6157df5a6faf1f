"""Choose text and image guidance from a small sweep, and say why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from customize.drawing.table import table
from customize.editing import Editor
from customize.editing.options import EditOptions
from customize.errors import ScoreError
from customize.families.sampling_defaults import Sampling, sampling_of
from customize.scoring.edits.tasks import EditTask
from customize.scoring.guidance.sweep import Point, check_settings, distinct, left_out, measure
from customize.scoring.items import Models

TOLERANCE = 0.01
"""Share of the best direction that may be given up for keeping more of the picture."""

APART = 0.02
"""Directions nearer to the best than this share of it are not told apart: twelve settings of the
embedded base lay within 1.5 %, and its own gave 0.3 dB more than the one chosen among them.
"""

IMAGE_GUIDANCES = (1.0, 1.2, 1.5, 1.8)
TEXT_STEPS = (0.6, 1.0, 1.4)
"""Of the base's own guidance above 1: 4.9, 7.5 and 10.1 for Stable Diffusion's 7.5."""


@dataclass(frozen=True)
class Choice:
    """The setting chosen, one sentence that says why, and everything it was chosen from."""

    chosen: Point
    reason: str
    points: tuple[Point, ...]

    def table(self) -> str:
        """Lay out all settings, the chosen one marked."""
        rows = [
            [
                f"{point.text_guidance:.3g}",
                f"{point.image_guidance:.3g}",
                f"{point.direction:.3f}",
                f"{point.image:.3f}",
                "chosen" if point is self.chosen else "",
            ]
            for point in self.points
        ]
        return table(rows, ["text guidance", "image guidance", "direction", "image kept", ""])


def usual_guidances(own: Sampling) -> tuple[list[float], tuple[float, ...]]:
    """Return text and image guidances worth trying around a base's own setting."""
    texts = [round(1 + (own.text_guidance - 1) * step, 2) for step in TEXT_STEPS]
    return texts, tuple(sorted({*IMAGE_GUIDANCES, own.image_guidance}))


def tune(
    editor: Editor,
    tasks: Sequence[EditTask],
    models: Models,
    *,
    text_guidances: Sequence[float] = (),
    image_guidances: Sequence[float] = (),
    options: EditOptions | None = None,
    floor: float | None = None,
    at_once: int = 8,
    progress: bool = False,
) -> Choice:
    """Make the tasks' edits at every pair of guidances and choose one for all of them.

    No guidances means the usual ones around the base's own. Raises ScoreError and EditError, both
    before the first edit.
    """
    if floor is not None and not -1 <= floor <= 1:
        raise ScoreError(f"floor {floor:g}: expected an image similarity, -1 to 1, such as 0.75")
    own = sampling_of(editor.base)
    texts, images = usual_guidances(own)
    pairs = [
        (text, image)
        for text in distinct(text_guidances or texts)
        for image in distinct(image_guidances or images)
    ]
    check_settings(tasks, pairs, options or {})
    points = [
        measure(editor, tasks, models, text, image, options or {}, at_once=at_once)
        for text, image in tqdm(pairs, "tuning", disable=None if progress else True, leave=False)
    ]
    choice = choose_guidance(points, floor, own)
    if fewer := left_out(points, tasks):
        choice = replace(choice, reason=f"{choice.reason}; {fewer}")
    read = next((task.wording for task in tasks if task.wording != task.instruction), None)
    if choice.chosen.against == "captions" or read is None:
        return choice
    doubt = f"no CLIP knows a taught word, so it read {read!r}: look at the edits, or give captions"
    return replace(choice, reason=f"{choice.reason}; {doubt}")


def choose_guidance(
    points: Sequence[Point], floor: float | None = None, own: Sampling | None = None
) -> Choice:
    """Choose the setting that keeps most of the picture while doing nearly all of the edit.

    The largest direction is what the edit can reach; of the settings within 1 % of it, the one with
    the highest image similarity is taken. With a `floor` only settings whose image similarity
    reaches it count, as InstructPix2Pix filtered its pairs (0.75 by ViT-L/14); where none does, the
    one that comes nearest is taken. Where the scores cannot tell the settings apart, because none
    goes the right way or all go equally far, the base's `own`, which it was measured with, is kept.
    """
    if not points:
        raise ScoreError("no guidances to choose from; expected at least one of each; name some")
    able = [point for point in points if floor is None or point.image >= floor]
    if not able:
        nearest = max(points, key=lambda point: (point.image, point.direction))
        why = f"no setting keeps {floor:g} of the picture, and this one comes nearest"
        return Choice(nearest, _sentence(nearest, why), tuple(points))
    best = max(point.direction for point in able)
    least = min(point.direction for point in able)
    default = next((point for point in able if own is not None and _is(point, own)), None)
    if default is not None and (best <= 0 or least >= (1 - APART) * best):
        how = "no setting goes the way the text tells" if best <= 0 else "all go equally far"
        why = f"{how}, so scores cannot choose, and the base's own setting is kept"
        return Choice(default, _sentence(default, why), tuple(points))
    if best <= 0:
        least_wrong = max(able, key=lambda point: (point.direction, point.image))
        return Choice(
            least_wrong,
            _sentence(least_wrong, "no setting goes the way the text tells"),
            tuple(points),
        )
    near = [point for point in able if point.direction >= (1 - TOLERANCE) * best]
    chosen = max(near, key=lambda point: (point.image, point.direction))
    share = chosen.direction / best
    why = "no setting goes further the way the text tells"
    if chosen.direction < best:
        why = f"it goes {share:.1%} of the furthest way that any setting goes"
    if len(near) > 1:
        why += f", and of the {len(near)} that go at least {1 - TOLERANCE:.0%} it keeps most"
    if floor is not None:
        why += f"; all below {floor:g} were left out"
    return Choice(chosen, _sentence(chosen, why), tuple(points))


def _is(point: Point, sampling: Sampling) -> bool:
    of_point = point.text_guidance, point.image_guidance
    return of_point == (sampling.text_guidance, sampling.image_guidance)


def _sentence(point: Point, why: str) -> str:
    of = "" if point.count == 1 else f", means of {point.count} edits"
    return (
        f"text guidance {point.text_guidance:.3g} and image guidance {point.image_guidance:.3g}: "
        f"{why} (direction {point.direction:.3f} against the {point.against}, image similarity "
        f"{point.image:.3f}{of})"
    )
