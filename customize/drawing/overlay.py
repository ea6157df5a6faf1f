"""Two pictures over one another, one red and one cyan: where they differ in place, colour shows."""

from __future__ import annotations

import numpy as np
from PIL import Image


def overlay(first: Image.Image, second: Image.Image) -> Image.Image:
    """Draw the light of the first in red and that of the second in green and blue.

    Both are brought to the same mean and contrast, so that looks differ less than places.
    """
    red_HW, cyan_HW = (_evened(each.convert("L").resize(first.size)) for each in (first, second))
    return Image.fromarray(np.stack([red_HW, cyan_HW, cyan_HW], axis=-1))


def _evened(grey: Image.Image) -> np.ndarray:
    levels_HW = np.asarray(grey, np.float32)
    spread = max(float(levels_HW.std()), 1.0)
    evened_HW = (levels_HW - levels_HW.mean()) * (48 / spread) + 128
    return np.rint(evened_HW).clip(0, 255).astype(np.uint8)
