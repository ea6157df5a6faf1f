"""Masks that the base draws itself: where the instruction changes what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from customize.editing.controlled import Work, sample_controlled, unedited
from customize.editing.denoiser_calls import BRANCHES, Answer, Call

if TYPE_CHECKING:
    from customize.editing.edited_picture import Settings

SHARE = 0.25
"""Of the largest difference: from here on a place counts as changed."""
LEAST = 20 / 255
"""A picture whose pixels move by less than this nowhere changes: no unrest is taken for an edit."""


@dataclass
class _Differences:
    """The layer that notes where predictions with and without the instruction differ."""

    total_Bhw: Tensor | None = None

    def __call__(self, answer: Answer, call: Call) -> Tensor:
        """Answer one call and add its difference; see `denoiser_calls.Layer`."""
        predicted = answer(call)
        full, source, _ = predicted.float().chunk(BRANCHES)
        difference_Bhw = (full - source).abs().mean(dim=1)
        self.total_Bhw = difference_Bhw + (0 if self.total_Bhw is None else self.total_Bhw)
        return predicted


def auto_masks(
    pipeline: Any, works: Sequence[Work], settings: Settings, tile: int
) -> list[Image.Image]:
    """Return a grey mask of the working size for each edit: white where its instruction acts.

    The edit is made once without a mask. The difference of the predictions with and without the
    instruction, averaged over its steps (DiffEdit, arXiv 2210.11427, section 3.2, averages over
    noises at one level), and that of the answer and what the autoencoder makes of the source have
    to agree: the square root of their product is cut at a share of its largest value.
    """
    if not works:
        return []
    whole, watch = [replace(work, mask=None) for work in works], _Differences()
    # Without text guidance the pipeline asks for no branches to compare.
    guided = replace(settings, fast=False, text_guidance=max(settings.text_guidance, 1.01))
    answers = sample_controlled(pipeline, whole, guided, tile=tile, watch=watch)
    plain = unedited(pipeline, [work.source for work in works])
    assert watch.total_Bhw is not None, "sampling calls the denoiser"
    return [
        _cut(predicted_hw, np.abs(answer_HWC - np.asarray(own, np.float32) / 255).max(axis=2))
        for predicted_hw, answer_HWC, own in zip(
            watch.total_Bhw.cpu().numpy(), answers, plain, strict=True
        )
    ]


def _cut(predicted_hw: np.ndarray, pixels_HW: np.ndarray) -> Image.Image:
    """Return white where both differences are large, without lone pixels."""
    size = pixels_HW.shape[1], pixels_HW.shape[0]
    enlarged = Image.fromarray(predicted_hw.astype(np.float32)).resize(
        size, Image.Resampling.BICUBIC
    )
    together_HW = _in_units(np.asarray(enlarged)) * _in_units(pixels_HW, LEAST)
    grey = Image.fromarray(((np.sqrt(together_HW) > SHARE) * 255).astype(np.uint8))
    return grey.filter(ImageFilter.MedianFilter(3))


def _in_units(difference_HW: np.ndarray, least: float = 1e-12) -> np.ndarray:
    """Scale from 0, its quiet part, to 1, its largest but for outliers."""
    low, high = np.quantile(difference_HW, (0.02, 0.995))
    return np.clip((difference_HW - low) / max(high - low, least), 0, 1)
