"""Keep the source's own pixels where an edit left them alone, and its detail where that shows."""

from __future__ import annotations

import numpy as np
from PIL import Image

RADIUS = 4
"""Half the side, in pixels of the working size, of the squares that answer and source are compared
in.
"""
RIDGE = 1 / 255**2
"""Variance of colours (of 0..1) below which a square counts as flat: little is learned from it."""
UNTOUCHED, CHANGED = 10 / 255, 32 / 255
"""Below the first a change is the base's own unrest and dropped, from the second on it is kept."""
_ROUNDING = 1 / (12 * 255**2)
"""The variance that rounding to 8 bits adds."""
_BAND, _REACH = 256, 2 * RADIUS + 1
"""Rows that are compared at a time, as the 3 x 3 numbers of every pixel take memory, and how far a
row looks.
"""


def with_own_detail(source: Image.Image, answer: Image.Image, unedited: Image.Image) -> Image.Image:
    """Return the source, of any size, changed as `answer` differs from `unedited`.

    Those are of the working size: what the base made, and what its autoencoder alone makes of the
    source, so that what it loses is no change. In small squares the answer's colours are written as
    a linear function of the source's and a rest, which grow with the picture better than pixels do
    (guided filter with colour guidance, He et al. 2010, eq. 14 and 15, fitted at a lower size as in
    arXiv 1505.00996). A new brightness or colour keeps all detail, a thing replaced loses the old
    one's. An answer equal to `unedited` gives the source back, bit for bit.
    """
    assert answer.size == unedited.size
    answer_HWC, unedited_HWC = _pixels(answer), _pixels(unedited)
    meant_HW1 = _told_from_unrest(answer_HWC - unedited_HWC)
    if not meant_HW1.any():
        return source
    slope_HWCC = _slopes(answer_HWC, unedited_HWC)
    rest_HWC = answer_HWC - np.einsum("hwio,hwi->hwo", slope_HWCC, unedited_HWC)
    source_HWC, size = _pixels(source), source.size
    meant_HW = _enlarged(meant_HW1[..., 0], size).clip(0, 1)
    made_HWC = np.empty_like(source_HWC)
    for color in range(3):
        edited_HW = _enlarged(rest_HWC[..., color], size)
        for given in range(3):
            slope_HW = _enlarged(slope_HWCC[..., given, color], size)
            edited_HW = edited_HW + slope_HW * source_HWC[..., given]
        own_HW = source_HWC[..., color]
        made_HWC[..., color] = own_HW + meant_HW * (edited_HW - own_HW)
    return Image.fromarray(np.rint(made_HWC * 255).clip(0, 255).astype(np.uint8))


def _told_from_unrest(change_HWC: np.ndarray) -> np.ndarray:
    """Return 1 where a change is meant and 0 where nothing is seen to change, (H, W, 1)."""
    size_HW1 = np.abs(change_HWC).max(axis=2, keepdims=True)
    meant_HW1 = np.clip((_mean(size_HW1, 1) - UNTOUCHED) / (CHANGED - UNTOUCHED), 0, 1)
    return meant_HW1 * meant_HW1 * (3 - 2 * meant_HW1)


def _slopes(answer_HWC: np.ndarray, unedited_HWC: np.ndarray) -> np.ndarray:
    """Return by how much the answer's colours (last axis) follow each of the source's in squares.

    What is not explained so is another thing's detail, and a blurred answer has lost it: slopes are
    smaller by the share of the answer's variance that they explain, and by how much weaker its
    finest detail is than they say. (H, W, 3, 3).
    """
    height, bands = len(answer_HWC), list[np.ndarray]()
    for top in range(0, height, _BAND):
        first, last = max(0, top - _REACH), min(height, top + _BAND + _REACH)
        fitted_HWCC = _fitted(answer_HWC[first:last], unedited_HWC[first:last])
        bands.append(fitted_HWCC[top - first : top - first + _BAND])
    return np.concatenate(bands)


def _fitted(answer_HWC: np.ndarray, unedited_HWC: np.ndarray) -> np.ndarray:
    answer_mean, unedited_mean = _mean(answer_HWC, RADIUS), _mean(unedited_HWC, RADIUS)

    def with_source(values_HWC: np.ndarray, mean_HWC: np.ndarray) -> np.ndarray:
        """Covariances of the source's colours with those of `values`, (H, W, 3, 3)."""
        products_HWCC = unedited_HWC[..., :, None] * values_HWC[..., None, :]
        means_HWC = _mean(products_HWCC.reshape(*values_HWC.shape[:2], -1), RADIUS)
        both_HWCC = unedited_mean[..., :, None] * mean_HWC[..., None, :]
        return means_HWC.reshape(products_HWCC.shape) - both_HWCC

    spread_HWCC = with_source(unedited_HWC, unedited_mean)
    together_HWCC = with_source(answer_HWC, answer_mean)
    ridge_CC = RIDGE * np.eye(3, dtype=np.float32)
    slope_HWCC = np.linalg.solve(spread_HWCC + ridge_CC, together_HWCC)
    of_answer_HW = (_mean(answer_HWC**2, RADIUS) - answer_mean**2).clip(0).sum(axis=2)
    explained_HW = (slope_HWCC * together_HWCC).sum(axis=(2, 3))
    share_HW = (explained_HW / (of_answer_HW + _ROUNDING)).clip(0, 1)
    followed_HWC = np.einsum("hwio,hwi->hwo", slope_HWCC, unedited_HWC)
    finest_HW, expected_HW = _finest(answer_HWC), _finest(followed_HWC)
    sharp_HW = np.sqrt((finest_HW + _ROUNDING) / (expected_HW + _ROUNDING)).clip(0, 1)
    return slope_HWCC * (share_HW * sharp_HW)[..., None, None]


def _finest(values_HWC: np.ndarray) -> np.ndarray:
    """Return how much neighbouring pixels differ, (H, W): the variance left beside their mean."""
    return _mean((values_HWC - _mean(values_HWC, 1)) ** 2, RADIUS).sum(axis=2)


def _mean(values_HWC: np.ndarray, radius: int) -> np.ndarray:
    """Average over squares of 2 radius + 1 pixels; the edge is repeated outward."""
    side = 2 * radius + 1
    edged_HWC = np.pad(values_HWC, ((radius + 1, radius), (radius + 1, radius), (0, 0)), "edge")
    sums_HWC = edged_HWC.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    upper, lower = sums_HWC[:-side], sums_HWC[side:]
    squares_HWC = lower[:, side:] - upper[:, side:] - lower[:, :-side] + upper[:, :-side]
    return (squares_HWC / side**2).astype(np.float32)


def _enlarged(values_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    plane = Image.fromarray(np.ascontiguousarray(values_HW))
    return np.asarray(plane.resize(size, Image.Resampling.BICUBIC))


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255
