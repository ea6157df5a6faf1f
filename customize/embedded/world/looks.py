"""Looks: edits of a whole picture, on photographs and on scenes (black and white, tints, duotones,
frames).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from PIL import Image, ImageFilter

from customize.embedded.world.colors import PALETTE

LookName = Literal[
    "black and white", "sepia", "negative", "poster", "bright", "dark", "warm", "cold", "blurred",
    "tint", "duotone", "frame", "bars",
]  # fmt: skip
PLAIN_LOOKS: tuple[LookName, ...] = (
    "black and white", "sepia", "negative", "poster", "bright", "dark", "warm", "cold", "blurred",
)  # fmt: skip
COLORED_LOOKS: tuple[LookName, ...] = ("tint", "duotone", "frame", "bars")
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Look:
    """A look and the colours it takes: one for tint, frame and bars, dark and light for duotone."""

    name: LookName
    colors: tuple[str, ...] = ()

    @property
    def phrase(self) -> str:
        """Say it as an adjective or addition: `in sepia`, `with a blue frame`."""
        match self.name:
            case "black and white" | "sepia":
                return f"in {self.name}"
            case "negative":
                return "as a negative"
            case "poster":
                return "as a poster"
            case "bright" | "dark" | "warm" | "cold":
                return f"in {self.name} light"
            case "blurred":
                return "out of focus"
            case "tint":
                return f"with a {self.colors[0]} tint"
            case "duotone":
                return f"in {self.colors[0]} and {self.colors[1]} duotone"
            case "frame":
                return f"with a {self.colors[0]} frame"
            case "bars":
                return f"with {self.colors[0]} bars"
            case _ as never:
                assert_never(never)


def apply_look(pixels_HWC: np.ndarray, look: Look) -> np.ndarray:
    """Give a picture a look; uint8 (H, W, 3) in and out."""
    image = pixels_HWC.astype(np.float32)
    colors = [np.array(PALETTE[name], np.float32) for name in look.colors]
    changed = _changed(image, look.name, colors)
    return changed.clip(0, 255).round().astype(np.uint8)


def _changed(image: np.ndarray, name: LookName, colors: list[np.ndarray]) -> np.ndarray:
    luma_HW1 = (image @ LUMA)[..., None]
    match name:
        case "black and white":
            return np.repeat(luma_HW1, 3, axis=2)
        case "sepia":
            return luma_HW1 * np.array([1.08, 0.88, 0.66]) + np.array([16, 8, 0])
        case "negative":
            return 255 - image
        case "poster":
            return np.round((image - 127.5) * 1.3 / 85.0 + 1.5).clip(0, 3) * 85.0
        case "bright":
            return 255 - (255 - image) * 0.55
        case "dark":
            return image * 0.45
        case "warm":
            return image * np.array([1.15, 0.98, 0.68]) + np.array([14, 4, 0])
        case "cold":
            return image * np.array([0.68, 0.95, 1.15]) + np.array([0, 4, 14])
        case "blurred":
            blur = ImageFilter.GaussianBlur(2.2 * len(image) / 64)
            picture = Image.fromarray(image.astype(np.uint8)).filter(blur)
            return np.asarray(picture, dtype=np.float32)
        case "tint":
            return luma_HW1 * 0.45 + colors[0] * 0.55
        case "duotone":
            return colors[0] + (colors[1] - colors[0]) * luma_HW1 / 255
        case "frame":
            return _framed(image, colors[0], 6, sides=True)
        case "bars":
            return _framed(image, colors[0], 10, sides=False)
        case _ as never:
            assert_never(never)


def _framed(image: np.ndarray, color: np.ndarray, width: int, sides: bool) -> np.ndarray:
    """Put a frame around a picture, or bars above and below: `width` 64ths of it wide."""
    framed, width = image.copy(), round(width * len(image) / 64)
    framed[:width], framed[-width:] = color, color
    if sides:
        framed[:, :width], framed[:, -width:] = color, color
    return framed


def random_look(rng: np.random.Generator) -> Look:
    """Draw a look; every second one takes colours."""
    if rng.random() < 0.45:
        return Look(PLAIN_LOOKS[int(rng.integers(len(PLAIN_LOOKS)))])
    name = COLORED_LOOKS[int(rng.integers(len(COLORED_LOOKS)))]
    names = list(PALETTE)
    if name != "duotone":
        return Look(name, (str(rng.choice(names)),))
    return Look(name, duotone_colors(rng))


def duotone_colors(rng: np.random.Generator) -> tuple[str, str]:
    """Draw a dark and a clearly lighter colour."""
    while True:
        dark, light = (str(name) for name in rng.choice(list(PALETTE), 2, replace=False))
        if LUMA @ np.array(PALETTE[light]) > LUMA @ np.array(PALETTE[dark]) + 60:
            return dark, light


@dataclass(frozen=True)
class UnknownLook:
    """A look that no instruction names: colours mixed by a random matrix, perhaps a border.

    What stands in such a picture can still be changed, and "keep it" has to keep the look as well.
    """

    mixing_CC: np.ndarray
    offset_C: np.ndarray
    border_C: np.ndarray | None
    width: int

    @classmethod
    def random(cls, rng: np.random.Generator) -> UnknownLook:
        """Draw one."""
        mixing_CC = np.diag(rng.uniform(0.4, 1.0, 3)) + rng.normal(0, 0.2, (3, 3))
        border_C = rng.uniform(0, 255, 3) if rng.random() < 0.4 else None
        return cls(mixing_CC, rng.uniform(-20, 60, 3), border_C, int(rng.integers(2, 9)))

    def apply(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """Give a picture this look; uint8 (H, W, 3) in and out."""
        changed = pixels_HWC.astype(np.float32) @ self.mixing_CC.T + self.offset_C
        if self.border_C is not None:
            changed = _framed(changed, self.border_C, self.width, sides=True)
        return changed.clip(0, 255).round().astype(np.uint8)
