"""Pairs with what was there in other colours, so that a concept does not come to depend on them."""

from __future__ import annotations

import numpy as np
from PIL import Image

SEEN, WHOLE = 4, 16
"""Levels of 255 by which source and target differ where a pixel begins to count as changed, and
where it wholly does: between, its colours are mixed.
"""
SATURATION, BRIGHTNESS = (0.0, 1.3), (0.3, 1.4)
"""What saturation and brightness are multiplied by, from and to; hue is turned by any angle."""


def changed_share(source_HWC: np.ndarray, target_HWC: np.ndarray) -> float:
    """Return the share of pixels that differ visibly, 0 to 1."""
    return float((_changed(source_HWC, target_HWC) > 0.5).mean())


def recolored(source_HWC: np.ndarray, target_HWC: np.ndarray, seed: int) -> np.ndarray:
    """Give what changes in a source other colours, the same ones for the same seed (uint8 RGB).

    What source and target share stays as it is, to the bit.

    >>> source, target = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    >>> source[0], target[0] = (200, 40, 40), (40, 200, 40)
    >>> other = recolored(source, target, seed=1)
    >>> (other[0] == source[0]).all(), (other[1] == source[1]).all()
    (np.False_, np.True_)
    """
    draw = np.random.default_rng(seed)
    hue_HW, saturation_HW, value_HW = (
        np.asarray(band, np.float64) for band in Image.fromarray(source_HWC).convert("HSV").split()
    )
    bands = (
        (hue_HW + draw.integers(256)) % 256,
        saturation_HW * draw.uniform(*SATURATION),
        value_HW * draw.uniform(*BRIGHTNESS),
    )
    levels = [Image.fromarray(band.clip(0, 255).astype(np.uint8)) for band in bands]
    other_HWC = np.asarray(Image.merge("HSV", levels).convert("RGB"), np.float64)
    share_HW1 = _changed(source_HWC, target_HWC)[..., None]
    mixed_HWC = source_HWC + share_HW1 * (other_HWC - source_HWC)
    return mixed_HWC.round().astype(np.uint8)


def _changed(source_HWC: np.ndarray, target_HWC: np.ndarray) -> np.ndarray:
    """Return how far each pixel (H, W) counts as changed, 0 to 1."""
    apart_HW = np.abs(source_HWC.astype(int) - target_HWC.astype(int)).max(axis=-1)
    return ((apart_HW - SEEN) / (WHOLE - SEEN)).clip(0, 1)
