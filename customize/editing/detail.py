"""Keep a large picture sharp: the edit's change from the working size, the source's own detail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

RADIUS = 4
"""Half the side, in pixels of the working size, of the squares that one line is fitted in."""
RIDGE = (1 / 255) ** 2
"""Variance of source pixels below which a square counts as flat: nothing is learned from it."""
UNTOUCHED, CHANGED = 10 / 255, 20 / 255
"""Below the first a change is the base's own unrest and dropped, from the second on it is kept."""


@dataclass(frozen=True)
class _Change:
    """What an edit does to a source s, small: gain s + shift + rest, (H, W, 3) each."""

    gain_HWC: np.ndarray
    shift_HWC: np.ndarray
    rest_HWC: np.ndarray


def with_own_detail(source: Image.Image, answer: Image.Image, unedited: Image.Image) -> Image.Image:
    """Return the source, of any size, changed as `answer` differs from `unedited`.

    Those are of the working size: what the base made, and what its autoencoder alone makes of the
    source, so that what it loses is no change. In small squares the change is written as a linear
    function of the source, whose two numbers grow with the picture better than pixels do (guided
    filter, He et al. 2010, eq. 5 and 6, fitted at a lower size as in arXiv 1505.00996): a new
    brightness or colour keeps all detail, a thing replaced loses the old one's. An answer equal to
    `unedited` gives the source back, bit for bit.
    """
    assert answer.size == unedited.size
    small_HWC = _pixels(source.resize(answer.size, Image.Resampling.LANCZOS))
    change_HWC = _pixels(answer) - _pixels(unedited)
    meant_HW1 = _told_from_unrest(change_HWC)
    if not meant_HW1.any():
        return source
    change = _as_line(change_HWC * meant_HW1, small_HWC, meant_HW1)
    gain_HWC, shift_HWC, rest_HWC = (
        _enlarged(part_HWC, source.size)
        for part_HWC in (change.gain_HWC, change.shift_HWC, change.rest_HWC)
    )
    large_HWC = _pixels(source)
    edited_HWC = large_HWC + gain_HWC * large_HWC + shift_HWC + rest_HWC
    return Image.fromarray(np.rint(edited_HWC * 255).clip(0, 255).astype(np.uint8))


def _told_from_unrest(change_HWC: np.ndarray) -> np.ndarray:
    """Return 1 where a change is meant and 0 where nothing is seen to change, (H, W, 1)."""
    size_HW = np.abs(change_HWC).max(axis=2)
    near_HW = _mean(size_HW[..., None], RADIUS // 2)[..., 0]
    meant_HW = np.clip((near_HW - UNTOUCHED) / (CHANGED - UNTOUCHED), 0, 1)
    meant_HW = meant_HW * meant_HW * (3 - 2 * meant_HW)
    return meant_HW[..., None]


def _as_line(change_HWC: np.ndarray, source_HWC: np.ndarray, weight_HW1: np.ndarray) -> _Change:
    """Fit the change as a line of the source in every square, channel by channel.

    Only what changes has a say, and only there the line acts.
    """
    inside_HW1 = np.maximum(_mean(weight_HW1, RADIUS), 1e-6)

    def mean(values_HWC: np.ndarray) -> np.ndarray:
        return _mean(weight_HW1 * values_HWC, RADIUS) / inside_HW1

    source_mean, change_mean = mean(source_HWC), mean(change_HWC)
    together = mean(source_HWC * change_HWC) - source_mean * change_mean
    spread = mean(source_HWC**2) - source_mean**2
    # A gain under -1 would turn detail inside out.
    gain = np.clip(together / (np.maximum(spread, 0) + RIDGE), -1, 2)
    gain_HWC = mean(gain) * weight_HW1
    shift_HWC = mean(change_mean - gain * source_mean) * weight_HW1
    return _Change(gain_HWC, shift_HWC, change_HWC - gain_HWC * source_HWC - shift_HWC)


def _mean(values_HWC: np.ndarray, radius: int) -> np.ndarray:
    """Average over squares of 2 radius + 1 pixels; the edge is repeated outward."""
    side = 2 * radius + 1
    edged_HWC = np.pad(values_HWC, ((radius + 1, radius), (radius + 1, radius), (0, 0)), "edge")
    sums_HWC = edged_HWC.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    upper, lower = sums_HWC[:-side], sums_HWC[side:]
    squares_HWC = lower[:, side:] - upper[:, side:] - lower[:, :-side] + upper[:, :-side]
    return (squares_HWC / side**2).astype(np.float32)


def _enlarged(values_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [
        Image.fromarray(np.ascontiguousarray(values_HWC[..., c])).resize(
            size, Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / 255
