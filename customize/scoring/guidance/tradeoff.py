"""The InstructPix2Pix paper's figure: image guidance swept, direction against what is kept.

Points are kept in a JSON file as soon as they are measured, under what they follow from, so a
stopped sweep goes on, and variants or guidances added later join those already there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from customize import __version__
from customize.drawing.table import table
from customize.editing import Editor
from customize.editing.options import EditOptions
from customize.errors import ScoreError
from customize.families.base import resolve_base
from customize.families.sampling_defaults import sampling_of
from customize.files import write_text
from customize.files.parse import load_json
from customize.scoring.edits.tasks import EditTask, in_plain_words
from customize.scoring.edits.variants import Variant
from customize.scoring.guidance.sweep import Point, check_settings, distinct, measurable, measure
from customize.scoring.items import Models
from customize.scoring.networks.embed import CODE_VERSION, Contents

IMAGE_GUIDANCES = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
"""Those of the paper's own evaluation."""

FORMAT = "customize-tradeoff"


@dataclass(frozen=True)
class Curve:
    """One variant's points, from the least image guidance to the largest."""

    label: str
    points: tuple[Point, ...]


def trace(
    variants: Sequence[Variant],
    tasks: Sequence[EditTask],
    models: Models,
    path: Path,
    *,
    text_guidance: float | None = None,
    image_guidances: Sequence[float] = IMAGE_GUIDANCES,
    options: EditOptions | None = None,
    at_once: int = 8,
    device: str | None = None,
    progress: bool = False,
) -> list[Curve]:
    """Measure every variant at every image guidance, but for the points that `path` holds.

    `text_guidance` None takes each base's own (7.5 where it names none, as in the paper). Raises
    ScoreError for a file that holds something else.
    """
    points, images = read_points(path), distinct(image_guidances)
    editors: dict[str, Editor] = {}
    curves: list[Curve] = []
    todo = tqdm(
        total=len(variants) * len(images),
        desc="trade-off",
        disable=None if progress else True,
    )
    with todo:
        for variant in variants:
            asked, _ = measurable([in_plain_words(t, variant.plain, variant.taught) for t in tasks])
            text = _text_guidance(variant) if text_guidance is None else text_guidance
            check_settings(asked, [(text, image) for image in images], options or {})
            start = _facts(variant, asked, models, text, options or {})
            found: list[Point] = []
            for image in images:
                key = _key({**start, "image_guidance": image})
                if key not in points:
                    if variant.base not in editors:
                        editors.clear()  # one base at a time
                        editors[variant.base] = Editor.from_base(variant.base, device=device)
                    editor = variant.put_on(editors[variant.base])
                    points[key] = measure(
                        editor, asked, models, text, image, options or {}, at_once=at_once
                    )
                    _write(path, points)
                found.append(points[key])
                todo.update()
            curves.append(Curve(variant.label, tuple(found)))
    return curves


def _text_guidance(variant: Variant) -> float:
    """Return the text guidance that the variant's base was measured with."""
    return sampling_of(resolve_base(variant.base)).text_guidance


def curves_table(curves: Sequence[Curve]) -> str:
    """Lay all points out for a terminal."""
    rows = [
        [
            curve.label,
            f"{point.text_guidance:.3g}",
            f"{point.image_guidance:.3g}",
            f"{point.direction:.3f}",
            f"{point.image:.3f}",
        ]
        for curve in curves
        for point in curve.points
    ]
    return table(rows, ["", "text guidance", "image guidance", "direction", "image kept"])


def read_points(path: Path) -> dict[str, Point]:
    """Read the points a file holds by key, none where there is no file; raises ScoreError."""
    try:
        content = load_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        return {key: Point(**point) for key, point in content["points"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScoreError(
            f"{path}: it holds no points to go on from ({type(error).__name__}: {error}); expected "
            "a JSON file of `customize score tradeoff`, or none; name another output"
        ) from None


def _write(path: Path, points: Mapping[str, Point]) -> None:
    content = {
        "format": FORMAT,
        "version": __version__,
        "points": {key: asdict(point) for key, point in points.items()},
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def _facts(
    variant: Variant,
    tasks: Sequence[EditTask],
    models: Models,
    text_guidance: float,
    options: EditOptions,
) -> dict[str, Any]:
    """Return all that a point follows from besides its image guidance."""
    contents = Contents()
    return {
        "variant": variant.identity(),
        "clip": models.clip.fingerprint if models.clip else None,
        "tasks": [
            [contents.key(task.source), task.instruction, task.plainly, *_captions(task)]
            for task in tasks
        ],
        "text_guidance": text_guidance,
        "options": dict(options),
        "code": CODE_VERSION,
        "version": __version__,
    }


def _captions(task: EditTask) -> tuple[str | None, str | None]:
    return task.source_caption, task.target_caption


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
