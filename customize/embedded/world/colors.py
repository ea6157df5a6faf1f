"""The named colours of the drawn world, and arithmetic on them."""

from __future__ import annotations

import colorsys

import numpy as np

RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 6),
    "yellow": (250, 220, 50),
    "green": (60, 160, 60),
    "teal": (40, 170, 160),
    "blue": (50, 110, 230),
    "navy": (28, 40, 110),
    "purple": (130, 60, 180),
    "pink": (250, 140, 190),
    "brown": (125, 80, 40),
    "white": (245, 245, 245),
    "gray": (140, 140, 140),
    "black": (25, 25, 25),
}


def nearest_name(rgb: np.ndarray) -> str:
    """Name the palette colour closest to `rgb` (three values, 0-255, Euclidean)."""
    return min(PALETTE, key=lambda name: float(np.sum((np.asarray(PALETTE[name]) - rgb) ** 2)))


def any_color(rng: np.random.Generator) -> RGB:
    """Draw a colour from the whole wheel, so that a base knows more than its named colours."""
    hue, saturation, value = rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.25, 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def jittered(rgb: RGB, rng: np.random.Generator, spread: float = 12.0) -> RGB:
    """Move a colour a little, by a normal step of `spread` a channel."""
    moved = np.clip(np.asarray(rgb) + rng.normal(0, spread, 3), 0, 255)
    return int(moved[0]), int(moved[1]), int(moved[2])


def mixed(one: RGB, other: RGB, share: float) -> RGB:
    """Mix `share` of `other` into `one`."""
    values = [round(a + (b - a) * share) for a, b in zip(one, other, strict=True)]
    return values[0], values[1], values[2]


def contrasting(rgb: RGB, share: float = 0.3) -> RGB:
    """Give a second shade of a colour: lighter where it is dark, darker where it is light."""
    luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    return mixed(rgb, (0, 0, 0) if luma > 110 else (255, 255, 255), share)
