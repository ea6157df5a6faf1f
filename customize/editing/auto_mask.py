"""Masks that the base draws itself: where the instruction changes what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

from customize.editing.controlled import Work, sample_controlled
from customize.editing.denoiser_calls import BRANCHES, Answer, Call

if TYPE_CHECKING:
    from customize.editing.edited_picture import Settings

SHARE = 0.3
"""Of the largest difference: from here on a place counts as changed (DiffEdit takes a half)."""


@dataclass
class _Differences:
    """The layer that notes where predictions with and without the instruction differ."""

    total_Bhw: Tensor | None = None

    def __call__(self, answer: Answer, call: Call) -> Tensor:
        predicted = answer(call)
        full, source, _ = predicted.float().chunk(BRANCHES)
        difference_Bhw = (full - source).abs().mean(dim=1)
        self.total_Bhw = difference_Bhw + (0 if self.total_Bhw is None else self.total_Bhw)
        return predicted


def auto_masks(
    pipeline: Any, works: Sequence[Work], settings: Settings, tile: int
) -> list[Image.Image]:
    """Return a grey mask of the working size for each edit: white where its instruction acts.

    The edit is made once without a mask; the difference of the predictions with and without the
    instruction is averaged over its steps, and cut at a share of its largest value (DiffEdit, arXiv
    2210.11427, section 3.2, which averages over noises at one level instead). Needs text guidance.
    """
    if not works:
        return []
    watch = _Differences()
    whole = [replace(work, mask=None) for work in works]
    sample_controlled(pipeline, whole, replace(settings, fast=False), tile=tile, watch=watch)
    assert watch.total_Bhw is not None, "sampling calls the denoiser"
    size = works[0].source.size
    return [_cut(each_hw, size) for each_hw in watch.total_Bhw.cpu().numpy()]


def _cut(difference_hw: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return white where a difference, smoothed a little, is large."""
    smooth_hw = np.asarray(
        Image.fromarray(difference_hw.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    )
    least, most = np.quantile(smooth_hw, (0.02, 0.995))
    changed_HW = smooth_hw - least > SHARE * max(most - least, 1e-12)
    grey = Image.fromarray((changed_HW * 255).astype(np.uint8))
    grown = max(3, size[0] // 32 * 2 + 1)
    return grey.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MaxFilter(grown))
