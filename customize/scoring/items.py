"""What is scored, by which metrics and networks, and the numbers that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from customize.scoring.judging.opinion import Judge
    from customize.scoring.networks.encoders import Clip, Dino
    from customize.scoring.networks.store import Store


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
    "shift",
    "judge_follows",
    "judge_keeps",
]


@dataclass(frozen=True)
class Item:
    """One finished edit, and whatever is known of how it should have come out.

    `mask` is white where the edit may change the picture. `references` are pictures of what was
    taught (a concept's targets), for `clip_concept` and `dino_concept`. `plainly` is the
    instruction in words that a CLIP knows, where it has taught ones such as <my-dog>; captions are
    expected in such words. `concept` and `name` only group and name the edit in reports;
    `further_sources` were looked at besides the source.
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
    further_sources: tuple[Picture, ...] = ()

    @property
    def wording(self) -> str:
        """Return the instruction as a CLIP is to read it."""
        return self.plainly or self.instruction


@dataclass(frozen=True)
class Models:
    """The networks that look at pictures, and where their answers are kept.

    LPIPS goes to the `device`; None is the accelerator if any. Without a `judge` edits are not
    judged.
    """

    clip: Clip | None
    dino: Dino | None
    store: Store
    device: torch.device | str | None = None
    judge: Judge | None = None


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
        return [metric.name for metric in METRICS if any(metric.name in row for row in self.rows)]


Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """A metric's name, its short title for tables, which way is better, and what it says."""

    name: MetricName
    title: str
    better: Better
    says: str

    def written(self, value: float) -> str:
        """Write a value with the digits that mean something."""
        return f"{value:.{1 if self.name == 'psnr' else 3}f}"


METRICS = (
    Metric("clip_image", "CLIP image", "neither", "how much of the picture stayed; 1 is a copy"),
    Metric("clip_direction", "CLIP direction", "higher", "whether it changed as its captions do"),
    Metric("clip_instruction", "CLIP instruction", "higher", "whether it changed as it was told"),
    Metric("clip_text", "CLIP text", "higher", "whether it shows what the target's caption says"),
    Metric("clip_concept", "CLIP-I", "higher", "likeness to the pictures of what was taught"),
    Metric("dino_concept", "DINO", "higher", "the same, with more of an eye for details"),
    Metric("psnr", "PSNR dB", "higher", "nearness to the target, pixel by pixel"),
    Metric("ssim", "SSIM", "higher", "nearness to the target, by local structure"),
    Metric("lpips", "LPIPS", "lower", "distance to the target, as people see it"),
    Metric("outside_change", "change outside", "lower", "damage outside of the mask"),
    Metric("shift", "shift px", "lower", "how far what stayed was moved from its place"),
    Metric("judge_follows", "judge: follows", "higher", "the instruction, 0 to 10, by a judge"),
    Metric("judge_keeps", "judge: keeps", "higher", "all else kept, 0 to 10, by a judge"),
)
