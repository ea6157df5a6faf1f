"""What cutting an adapter costs: its edits and their scores, the exact adapter's against the cut's.

The relative error of a weight says little of pictures; these are a few seeded edits of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from customize.exporting.proof.sample_edits import SampleEdit

if TYPE_CHECKING:
    from customize.scoring.items import MetricName, Models

_SCORES: Mapping[MetricName, str] = {
    "clip_image": "CLIP image",
    "clip_instruction": "CLIP instruction",
}
NO_CLIP = "CLIP scores left out: name a CLIP with --clip"


@dataclass(frozen=True)
class EditChange:
    """How far `edits` edits moved, over all of them.

    `mean` and `largest` are absolute differences of pixels (0..255), `psnr` (dB) and `ssim` the
    cut adapter's edits measured against the exact one's. `scores` has each score's mean for the
    exact and for the cut adapter, by its title; empty without a CLIP.
    """

    edits: int
    mean: float
    largest: float
    psnr: float
    ssim: float
    scores: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        """Say it in one line."""
        scores = [
            f"{title} {exact:.3f} -> {cut:.3f}" for title, (exact, cut) in self.scores.items()
        ]
        moved = (
            f"pixels move by {self.mean:.2f} of 255 on average, {self.largest:.0f} at most",
            f"PSNR {self.psnr:.1f} dB",
            f"SSIM {self.ssim:.3f}",
        )
        return f"{self.edits} edits against the exact adapter's: " + "; ".join(
            [*moved, *(scores or [NO_CLIP])]
        )


def compare_edits(
    exact_BHWC: np.ndarray,
    cut_BHWC: np.ndarray,
    samples: tuple[SampleEdit, ...],
    models: Models | None = None,
) -> EditChange:
    """Compare the same edits by the exact adapter and by what was written of it.

    `models` holds the CLIP to score by, None scores without one.
    """
    from customize.scoring import open_models

    models = models or open_models(None)
    exact, cut = _pictures(exact_BHWC), _pictures(cut_BHWC)
    likeness = _means(samples, cut, exact, models, ("psnr", "ssim"))
    scores = {}
    if models.clip is not None:
        before, after = (
            _means(samples, pictures, exact, models, tuple(_SCORES)) for pictures in (exact, cut)
        )
        scores = {title: (before[name], after[name]) for name, title in _SCORES.items()}
    off_BHWC = np.abs(exact_BHWC - cut_BHWC) * 255
    return EditChange(
        edits=len(samples),
        mean=float(off_BHWC.mean()),
        largest=float(off_BHWC.max()),
        psnr=likeness["psnr"],
        ssim=likeness["ssim"],
        scores=scores,
    )


def _means(
    samples: tuple[SampleEdit, ...],
    outputs: Sequence[Image.Image],
    targets: Sequence[Image.Image],
    models: Models,
    metrics: tuple[MetricName, ...],
) -> dict[MetricName, float]:
    """Return each metric's mean; every edit has every one of these."""
    from customize.scoring import score_edits
    from customize.scoring.items import Item

    items = [
        Item(
            *(each.request.source, each.request.instruction, output, target),
            plainly=each.plainly,
        )
        for each, output, target in zip(samples, outputs, targets, strict=True)
    ]
    scores = score_edits(items, models, metrics)
    return {metric: sum(scores.values(metric)) / len(items) for metric in metrics}


def _pictures(edits_BHWC: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray((255 * each).round().astype(np.uint8)) for each in edits_BHWC]
