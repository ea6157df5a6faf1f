"""Changes made to both pictures of a pair alike, that leave the edit between them true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

CHANGED = 10
"""A pixel counts as changed when a channel differs by more than this (of 255)."""
KEPT = 0.97
"""Share of the changed pixels that a crop has to hold."""
EVERYWHERE = 0.6
"""From this share of changed pixels on nothing is cut off: a frame may be part of what changed."""
SMALLEST = 0.7
SIDED = ("left", "right", "text", "letter", "word", "logo", "sign", "write")
"""Words of instructions for which a mirrored pair would say something else."""


@dataclass(frozen=True)
class JointChange:
    """A crop, as shares of width and height (left, top, right, bottom), and whether to mirror."""

    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirrored: bool = False

    def apply(self, picture: Image.Image) -> Image.Image:
        """Change one of the two pictures; it keeps its size."""
        width, height = picture.size
        left, top, right, bottom = self.box
        box = (left * width, top * height, right * width, bottom * height)
        cut = picture.resize(picture.size, Image.Resampling.LANCZOS, box=box)
        return ImageOps.mirror(cut) if self.mirrored else cut


def draw_change(
    source: Image.Image, target: Image.Image, instruction: str, rng: np.random.Generator
) -> JointChange:
    """Draw a change that keeps the edit true: what changed stays in the picture.

    Pairs whose sizes differ, or that change everywhere, are mirrored at most.
    """
    mirrored = bool(rng.random() < 0.5) and may_mirror(instruction)
    changed_HW = _changed(source, target)
    if changed_HW is None or changed_HW.mean() > EVERYWHERE:
        return JointChange(mirrored=mirrored)
    for _ in range(50):
        side = float(rng.uniform(SMALLEST, 1))
        left, top = (float(rng.uniform(0, 1 - side)) for _ in range(2))
        box = (left, top, left + side, top + side)
        if _inside(changed_HW, box) >= KEPT:
            return JointChange(box, mirrored)
    return JointChange(mirrored=mirrored)


def may_mirror(instruction: str) -> bool:
    """Tell whether an instruction names neither a side nor lettering."""
    return not any(word in instruction.lower() for word in SIDED)


def _changed(source: Image.Image, target: Image.Image) -> np.ndarray | None:
    if source.size != target.size:
        return None
    pair = [np.asarray(picture.convert("RGB")).astype(np.int16) for picture in (source, target)]
    return np.abs(pair[0] - pair[1]).max(axis=-1) > CHANGED


def _inside(changed_HW: np.ndarray, box: tuple[float, float, float, float]) -> float:
    """Return the share of the changed pixels inside a box; 1 where nothing changed."""
    height, width = changed_HW.shape
    left, top, right, bottom = box
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    return float(changed_HW[rows, columns].sum() / max(1, changed_HW.sum()))
