"""Scores of edits: what the InstructPix2Pix paper and the field measure.

    models = open_models("embedded")
    scores = score_edits([Item("dog.png", "paint the dog red", "red_dog.png")], models)
    scores.mean("clip_image")   # and scores.rows: a number for every edit and metric

`docs/scoring.md` has every metric's formula, range and source; `metrics.py` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from customize.scoring.encoders import Clip, Dino
    from customize.scoring.store import Store

Picture: TypeAlias = "Image.Image | Path | str"
"""A picture in memory, or the file that is read when its turn comes."""

Answer = float | str
"""A number, or why there is none."""

MetricName = Literal[
    "clip_image",
    "clip_direction",
    "clip_instruction",
    "clip_text",
    "clip_concept",
    "dino_concept",
    "psnr",
    "ssim",
    "lpips",
    "outside_change",
]


@dataclass(frozen=True)
class Item:
    """One finished edit, and whatever is known of how it should have come out.

    `mask` is white where the edit may change the picture. `references` are pictures of what was
    taught (a concept's targets), for `clip_concept` and `dino_concept`. `plainly` is the
    instruction in words that a CLIP knows, where it has taught ones such as <my-dog>; captions are
    expected in such words. `concept` and `name` only group and name the edit in reports.
    """

    source: Picture
    instruction: str
    output: Picture
    target: Picture | None = None
    source_caption: str | None = None
    target_caption: str | None = None
    mask: Picture | None = None
    references: tuple[Picture, ...] = ()
    plainly: str | None = None
    concept: str = ""
    name: str = ""

    @property
    def wording(self) -> str:
        """Return the instruction as a CLIP is to read it."""
        return self.plainly or self.instruction


@dataclass(frozen=True)
class Models:
    """The networks that look at pictures, and where their answers are kept.

    LPIPS goes to the `device`; None is the accelerator if any.
    """

    clip: Clip | None
    dino: Dino | None
    store: Store
    device: torch.device | str | None = None


@dataclass(frozen=True)
class Scores:
    """A row of numbers for every item, in the items' order, and a note for all that is left out."""

    rows: tuple[Mapping[MetricName, float], ...]
    notes: tuple[str, ...] = ()

    def values(self, metric: MetricName) -> list[float]:
        """List a metric's values, of the items that have one."""
        return [row[metric] for row in self.rows if metric in row]

    def mean(self, metric: MetricName) -> float | None:
        """Return a metric's mean over the items that have it, None where none has."""
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    def error(self, metric: MetricName) -> float | None:
        """Return the standard error of the mean, None below two values."""
        values, mean = self.values(metric), self.mean(metric)
        if mean is None or len(values) < 2:
            return None
        variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return (variance / len(values)) ** 0.5

    def metrics(self) -> list[MetricName]:
        """List the metrics that any item has, in the order of `docs/scoring.md`."""
        from customize.scoring.metrics import METRICS

        return [metric.name for metric in METRICS if any(metric.name in row for row in self.rows)]


def open_models(
    clip: str | None = "embedded",
    dino: str | None = None,
    *,
    device: torch.device | str | None = None,
    cache: Path | None = None,
) -> Models:
    """Open models by name: `embedded` (the embedded base's CLIP), a folder or a hub id.

    Answers are kept in the file `cache`, in memory where it is None. Raises ScoreError.
    """
    from customize.scoring.encoders import open_clip, open_dino
    from customize.scoring.store import Store

    return Models(
        clip=None if clip is None else open_clip(clip, device),
        dino=None if dino is None else open_dino(dino, device),
        store=Store(cache),
        device=device,
    )


def score_edits(
    items: Sequence[Item],
    models: Models,
    metrics: Sequence[MetricName] | None = None,
    *,
    at_once: int = 32,
    progress: bool = False,
) -> Scores:
    """Score finished edits by `metrics`, None for every metric that the items allow.

    A metric asked for by name that no item allows is an error; otherwise notes say what is missing
    and why. `at_once` pictures go through a network together. Raises ScoreError, and PairsError for
    pictures that cannot be read.
    """
    from customize.scoring.metrics import score

    return score(items, models, metrics, at_once=at_once, progress=progress)
