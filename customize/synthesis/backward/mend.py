"""Mend what a base leaves of a look in the sources it makes: a common frame, and few colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

ALIKE = 12
"""Levels of 255 by which a frame's pixels differ at most, in a picture and between pictures."""
THICKEST = 0.25
"""Share of a side; what is uniform further in is no frame."""
STRONGEST = 60.0
"""Standard deviation of the colour (Cb and Cr, levels of 255) that is laid over a source."""
GRID = 3
"""Patches of one colour along a side."""


@dataclass(frozen=True)
class Frame:
    """How thick a frame is, as shares of width and height."""

    left: float = 0.0
    top: float = 0.0
    right: float = 0.0
    bottom: float = 0.0


def common_frame(pictures: Sequence[Image.Image]) -> Frame:
    """Find the frame of one colour that all pictures (two at least) have; none is all zeros."""
    if len(pictures) < 2:
        return Frame()
    return Frame(*(_thickness(pictures, turns) for turns in (3, 0, 1, 2)))


def _thickness(pictures: Sequence[Image.Image], turns: int) -> float:
    """Return the share of rows, from the first on, that have one colour in all pictures.

    Each is turned left by so many quarters before: by one its right side comes to the top. One
    picture at a time is held as numbers, as finished pictures may be large and many.
    """
    firsts = [_outer(picture, turns)[0][0] for picture in pictures]
    color_C = np.median([np.median(first_WC, axis=0) for first_WC in firsts], axis=0)
    shares = list[float]()
    for picture in pictures:
        outer_HWC, height = _outer(picture, turns)
        strange_H = (np.abs(outer_HWC - color_C) > ALIKE).any(axis=(1, 2))
        shares.append(int(strange_H.argmax()) / height if strange_H.any() else THICKEST)
    return min(*shares, THICKEST)


def _outer(picture: Image.Image, turns: int) -> tuple[np.ndarray, int]:
    """Return the rows that may be frame of a turned picture, and how many it has in all."""
    turned_HWC = np.rot90(np.asarray(picture.convert("RGB")), turns)
    height = len(turned_HWC)
    return turned_HWC[: math.ceil(THICKEST * height)], height


def without_frame(picture: Image.Image, frame: Frame) -> Image.Image:
    """Put the mirrored inside in a frame's place; a picture without one comes back as it is."""
    if frame == Frame():
        return picture
    width, height = picture.size
    # one pixel more: scaled pictures have mixed colours at a frame's inner edge
    across = [int(np.ceil(share * width)) + (share > 0) for share in (frame.left, frame.right)]
    down = [int(np.ceil(share * height)) + (share > 0) for share in (frame.top, frame.bottom)]
    array_HWC = np.asarray(picture.convert("RGB"))
    inside_HWC = array_HWC[down[0] : height - down[1], across[0] : width - across[1]]
    return Image.fromarray(np.pad(inside_HWC, (down, across, (0, 0)), mode="reflect"))


def with_random_colors(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lay random colours over a picture, in soft patches and by brightness; its luma stays."""
    luma_HW, *chroma = (np.asarray(band, np.float64) for band in picture.convert("YCbCr").split())
    bands = [luma_HW]
    for band_HW in chroma:
        patches = Image.fromarray(rng.normal(0, STRONGEST, (GRID, GRID)).astype(np.float32))
        soft_HW = np.asarray(patches.resize(picture.size, Image.Resampling.BICUBIC))
        by_luma = rng.normal(0, STRONGEST) * (luma_HW / 127.5 - 1)
        bands.append(band_HW + soft_HW * rng.uniform() + by_luma * rng.uniform())
    levels = [Image.fromarray(np.clip(band, 0, 255).astype(np.uint8)) for band in bands]
    return Image.merge("YCbCr", levels).convert("RGB")
