"""The loss curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 480)
MARGIN = 64
INK, FAINT, LINE, RAW = "#1a1a1a", "#e4e4e4", "#c2410c", "#f3c9b4"


def loss_curve(losses: Sequence[float], title: str = "loss") -> Image.Image:
    """Draw every step's loss faintly and their running mean over it, from zero up to the 99 %."""
    values = np.asarray(losses, dtype=float)
    assert len(values), "a curve without steps"
    smooth = _running_mean(values, max(1, len(values) // 20))
    top = max(float(np.quantile(values, 0.99)), float(smooth.max()), 1e-12) * 1.05
    image = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(share * top, top)
        draw.line([(MARGIN, y), (SIZE[0] - MARGIN // 2, y)], fill=FAINT)
        draw.text((MARGIN - 8, y), f"{share * top:.3g}", INK, font, anchor="rm")
        step = max(1, round(share * len(values)))
        draw.text((_x(step - 1, len(values)), SIZE[1] - MARGIN + 8), str(step), INK, font, "mt")
    draw.text((SIZE[0] / 2, MARGIN / 2), title, INK, font, anchor="mm")
    draw.text((SIZE[0] / 2, SIZE[1] - 16), "steps", INK, font, anchor="mm")
    draw.line(_points(values, top), fill=RAW, width=1)
    draw.line(_points(smooth, top), fill=LINE, width=3)
    return image


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of the last `width` values at every place."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _points(values: np.ndarray, top: float) -> list[tuple[float, float]]:
    points = [(_x(i, len(values)), _y(min(v, top), top)) for i, v in enumerate(values)]
    return points * 2 if len(points) == 1 else points


def _x(index: int, count: int) -> float:
    return MARGIN + (SIZE[0] - 1.5 * MARGIN) * index / max(1, count - 1)


def _y(value: float, top: float) -> float:
    return SIZE[1] - MARGIN - (SIZE[1] - 2 * MARGIN) * value / top
