"""Where a picture has structure, whatever its colours and its light; blurring and sampling."""

from __future__ import annotations

import math

import numpy as np


def structure(pixels_HWC: np.ndarray) -> np.ndarray:
    """Return the strength of edges of every colour, (H, W), divided by what is usual around.

    Turning light and dark, or colours, into others leaves edges where they are.
    """
    squares_HW = np.zeros(pixels_HWC.shape[:2])
    for channel in range(pixels_HWC.shape[2]):
        smooth_HW = blurred(pixels_HWC[..., channel], 0.8)
        down_HW, across_HW = np.gradient(smooth_HW)
        squares_HW += down_HW**2 + across_HW**2
    strength_HW = np.sqrt(squares_HW)
    around_HW = np.sqrt(blurred(squares_HW, 12.0))
    return strength_HW / (around_HW + 0.1 * around_HW.mean() + 0.5)


def blurred(values_HW: np.ndarray, deviation: float) -> np.ndarray:
    """Blur by a Gaussian of `deviation` pixels, (H, W); beyond an edge its pixels go on."""
    if deviation > 3:
        return _thrice_averaged(values_HW, deviation)
    reach = max(1, round(3 * deviation))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * deviation**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if each == axis else (0, 0) for each in (0, 1)]
        padded = np.pad(values_HW, padding, mode="edge")
        length = values_HW.shape[axis]
        shifted = [
            weight * np.take(padded, range(start, start + length), axis=axis)
            for start, weight in enumerate(kernel)
        ]
        values_HW = np.sum(shifted, axis=0)
    return values_HW


def _thrice_averaged(values_HW: np.ndarray, deviation: float) -> np.ndarray:
    """Blur by three moving averages, which is nearly a Gaussian and costs the same at any width."""
    reach = max(1, round((math.sqrt(4 * deviation**2 + 1) - 1) / 2))  # of one, in pixels
    for axis in (0, 1, 0, 1, 0, 1):
        padding = [(reach + 1, reach) if each == axis else (0, 0) for each in (0, 1)]
        sums = np.cumsum(np.pad(values_HW, padding, mode="edge"), axis=axis)
        ahead = np.take(sums, range(2 * reach + 1, sums.shape[axis]), axis=axis)
        behind = np.take(sums, range(sums.shape[axis] - 2 * reach - 1), axis=axis)
        values_HW = (ahead - behind) / (2 * reach + 1)
    return values_HW


def sampled(
    values_HW: np.ndarray, rows_HW: np.ndarray, columns_HW: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Read values between pixels, linearly: those of places that lie inside, and which (H, W)."""
    height, width = values_HW.shape
    inside_HW = (rows_HW >= 0) & (rows_HW <= height - 1)
    inside_HW &= (columns_HW >= 0) & (columns_HW <= width - 1)
    rows, columns = rows_HW[inside_HW], columns_HW[inside_HW]
    top = np.minimum(rows.astype(int), height - 2)
    left = np.minimum(columns.astype(int), width - 2)
    down, right = rows - top, columns - left
    upper = values_HW[top, left] * (1 - right) + values_HW[top, left + 1] * right
    lower = values_HW[top + 1, left] * (1 - right) + values_HW[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down, inside_HW
