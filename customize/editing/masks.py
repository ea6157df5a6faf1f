"""Where an edit may change a picture, and with what soft edge; outside not a bit moves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from customize.errors import EditError
from customize.pairs.decode import load_picture

AUTO = "auto"
SOFT = 0.01
"""Width of the soft edge, a share of the picture's shorter side; it lies inside the mask."""
_NARROWEST = 1.0
"""Pixels. A narrower edge only mixes the outermost pixels with the source: on drawn scenes of 64 px
it made the inside worse than no mask does.
"""

_SHAPE = 0.02
"""How far a mask's shape (W / H) may be from its picture's, a share: what scaling rounds."""


@dataclass(frozen=True)
class Mask:
    """One of three: a picture's white, a rectangle (x, y, W, H in pixels of the picture as it is
    shown), or, `auto`, where the instruction changes what the base answers.
    """

    file: Path | None = None
    region: tuple[int, int, int, int] | None = None
    auto: bool = False

    def __post_init__(self) -> None:
        """Refuse what is none of them, or more than one."""
        assert (self.file is not None) + (self.region is not None) + self.auto == 1


def region_of(text: str) -> Mask:
    """Read `X,Y,W,H`; raises EditError.

    >>> region_of("10, 20, 300, 200").region
    (10, 20, 300, 200)
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    numbers = [int(number) for number in found.groups()] if found else [0]
    if len(numbers) != 4 or not numbers[2] or not numbers[3]:
        raise EditError(
            f"region {text!r:.40}: expected X,Y,W,H, four whole numbers of pixels; "
            "write one such as 10,20,300,200"
        )
    x, y, width, height = numbers
    return Mask(region=(x, y, width, height))


def drawn(mask: Mask, size: tuple[int, int]) -> Image.Image:
    """Return the mask as a grey picture of `size` (W, H): 255 is edited, 0 is left alone.

    A mask picture of another size but the same shape is scaled. Raises EditError for another shape,
    a region outside and a mask without white, PairsError for a file that is no picture.
    """
    if mask.region is not None:
        x, y, width, height = mask.region
        if x >= size[0] or y >= size[1]:
            raise EditError(
                f"region {x},{y},{width},{height}: it lies outside the picture of "
                f"{size[0]}x{size[1]} pixels; expected inside; correct it"
            )
        grey = Image.new("L", size, 0)
        grey.paste(255, (x, y, min(x + width, size[0]), min(y + height, size[1])))
        return grey
    assert mask.file is not None, "an automatic mask is drawn from predictions"
    grey = load_picture(mask.file).convert("L")
    if abs(grey.width / grey.height * size[1] / size[0] - 1) > _SHAPE:
        raise EditError(
            f"mask {mask.file}: {grey.width}x{grey.height} pixels for a picture of "
            f"{size[0]}x{size[1]}; expected the same shape; make it of the picture's size"
        )
    if grey.size != size:
        grey = grey.resize(size, Image.Resampling.BILINEAR)
    if grey.getextrema() == (0, 0):
        raise EditError(
            f"mask {mask.file}: it is black, so that nothing is edited; expected white where to "
            "edit; invert it?"
        )
    return grey


def softened(grey: Image.Image, soft: float = SOFT) -> Image.Image:
    """Let the mask rise from 0 at its edge to 255 inside, staying 0 wherever it was 0.

    Narrow masks get a narrower edge, so that at least half of the mask is left.
    """
    mask_HW = np.asarray(grey)
    wanted = mask_HW.sum(dtype=np.int64) / 2
    radius = soft * min(grey.size)
    while radius >= _NARROWEST:
        blurred = grey.filter(ImageFilter.BoxBlur(radius / 2)).filter(
            ImageFilter.BoxBlur(radius / 2)
        )
        rising_HW = np.clip(2 * np.asarray(blurred, dtype=np.int16) - 255, 0, 255)
        soft_HW = np.minimum(rising_HW, mask_HW).astype(np.uint8)
        if soft_HW.sum(dtype=np.int64) >= wanted:
            return Image.fromarray(soft_HW)
        radius /= 2
    return grey


def latent_mask(grey: Image.Image, width: int, height: int) -> np.ndarray:
    """Return where latent pixels may change, (h, w) bool: wherever any pixel under them may, and
    beside that.

    An autoencoder draws a pixel from the cells around it as well: held to the source right beside a
    mask, they spoil what is made inside (5 % more error on drawn scenes; with one cell more, none).
    """
    values_HW = np.asarray(grey, dtype=np.float32)
    covered = Image.fromarray(values_HW).resize((width, height), Image.Resampling.BOX)
    free = Image.fromarray(((np.asarray(covered) > 0) * 255).astype(np.uint8))
    return np.asarray(free.filter(ImageFilter.MaxFilter(3))) > 0


def composed(answer: Image.Image, source: Image.Image, soft: Image.Image) -> Image.Image:
    """Lay the answer over the source where the soft mask says; where that is 0 not a bit moves."""
    return Image.composite(answer, source, soft)


def union(masks: list[Image.Image]) -> Image.Image:
    """Return where any of the masks, all of one size, lets an edit through."""
    return Image.fromarray(np.max([np.asarray(mask) for mask in masks], axis=0))
