"""How far a pair's target lies beside its source: shift, scale and rotation, below a pixel.

Models that edit learn a shift as they learn the edit: results then move, or grow a border. Looks
may differ on both sides, so what is compared is where structure is, not how bright it is. Phase
correlation finds large shifts (Kuglin and Hines 1975); the enhanced correlation coefficient, of
which steps are taken in closed form, all the rest (Evangelidis and Psarakis 2008, IEEE PAMI 30.10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from customize.pairs.lint.structure import blurred, sampled, structure

LONGEST = 512
"""Sides above it are scaled down to it, in pixels: finer shifts than a tenth of one still show."""
LEVELS = (4.0, 2.0, 1.0)
STEPS, SMALL = 20, 0.02
"""Steps at each level of blur at most, and pixels of a corner's movement that end them."""


@dataclass(frozen=True)
class Alignment:
    """Where the target shows what the source shows: turned and scaled about the middle, shifted.

    `x` and `y` are in pixels of the source, to the right and down, `scale` 1.01 is one per cent
    larger, `degrees` clockwise. `before` and `after` are the correlations of structure as they lie
    and as they would lie aligned; `agreeing` is the share of the frame's parts that gain by it.
    """

    x: float
    y: float
    scale: float
    degrees: float
    before: float
    after: float
    agreeing: float

    def distance(self, size: tuple[int, int]) -> float:
        """Return how far points of a picture of `size` (W, H) are moved, root mean square."""
        spread = (size[0] ** 2 + size[1] ** 2) / 12
        turned = abs(self.scale * np.exp(1j * math.radians(self.degrees)) - 1) ** 2
        return math.sqrt(self.x**2 + self.y**2 + float(turned) * spread)

    @property
    def certain(self) -> bool:
        """Whether what both show tells enough: edits that change all leave nothing to compare."""
        return self.after >= 0.35 and self.agreeing >= 0.85


def alignment(source: Image.Image, target: Image.Image) -> Alignment:
    """Measure how the target lies beside the source; one of another size is scaled to it first."""
    shrink = min(1.0, LONGEST / max(source.size))
    width, height = size = (
        max(16, round(source.width * shrink)),
        max(16, round(source.height * shrink)),
    )
    ours, theirs = (
        structure(np.asarray(each.convert("RGB").resize(size, Image.Resampling.LANCZOS), float))
        for each in (source, target)
    )
    found = np.zeros(4)
    found[2:] = _large_shift(blurred(ours, 2.0), blurred(theirs, 2.0))
    for level in LEVELS:
        found = _refined(blurred(ours, level), blurred(theirs, level), found)
    before, after, agreeing = _gain(blurred(ours, 1.0), blurred(theirs, 1.0), found)
    turned = complex(1 + found[0], found[1])
    ratio = source.width / width, source.height / height
    return Alignment(
        x=float(found[2]) * ratio[0],
        y=float(found[3]) * ratio[1],
        scale=abs(turned),
        degrees=math.degrees(math.atan2(turned.imag, turned.real)),
        before=before,
        after=after,
        agreeing=agreeing,
    )


def _large_shift(ours_HW: np.ndarray, theirs_HW: np.ndarray) -> np.ndarray:
    """Return the shift (x, y) in whole pixels by phase correlation, 0 where its peak is no peak."""
    height, width = ours_HW.shape
    window_HW = np.outer(np.hanning(height), np.hanning(width))
    spectra = [np.fft.rfft2((each - each.mean()) * window_HW) for each in (ours_HW, theirs_HW)]
    cross = np.conj(spectra[0]) * spectra[1]
    surface_HW = np.fft.irfft2(cross / (np.abs(cross) + 1e-9), s=ours_HW.shape)
    surface_HW = blurred(np.fft.fftshift(surface_HW), 1.0)
    reach = [max(2, side // 8) for side in surface_HW.shape]
    middle = [side // 2 for side in surface_HW.shape]
    near_HW = surface_HW[
        middle[0] - reach[0] : middle[0] + reach[0] + 1,
        middle[1] - reach[1] : middle[1] + reach[1] + 1,
    ]
    y, x = np.unravel_index(int(near_HW.argmax()), near_HW.shape)
    strong = near_HW.max() > near_HW.mean() + 8 * near_HW.std()
    far = max(abs(int(x) - reach[1]), abs(int(y) - reach[0])) > 2
    return np.array([x - reach[1], y - reach[0]], float) if strong and far else np.zeros(2)


def _refined(ours_HW: np.ndarray, theirs_HW: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Climb to the largest correlation: four numbers (a, b, x, y), p -> (1 + a + ib) p + x + iy.

    Where structure differs, weights fall (Cauchy), so that what an edit added does not pull.
    """
    found, (rows_HW, columns_HW) = start.copy(), _grid(ours_HW.shape)
    slope_y_HW, slope_x_HW = np.gradient(theirs_HW)
    corner = math.hypot(*ours_HW.shape) / 2
    for _ in range(STEPS):
        moved = _moved(found, rows_HW, columns_HW)
        theirs, inside = sampled(theirs_HW, *moved)
        across, down = (sampled(slope, *moved)[0] for slope in (slope_x_HW, slope_y_HW))
        columns, rows = columns_HW[inside], rows_HW[inside]
        slopes = np.stack(
            [across * columns + down * rows, down * columns - across * rows, across, down]
        )
        weights = _weights(ours_HW, theirs, inside)
        step = _step(ours_HW[inside], theirs, slopes, weights)
        found += step
        if math.hypot(step[2], step[3]) + math.hypot(step[0], step[1]) * corner < SMALL:
            break
    return found


def _step(
    ours: np.ndarray, theirs: np.ndarray, slopes_PN: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the step that raises the weighted correlation most, in closed form."""
    mean = [np.average(each, weights=weights) for each in (ours, theirs)]
    ours, theirs = ours - mean[0], theirs - mean[1]
    slopes_PN = slopes_PN - np.average(slopes_PN, axis=1, weights=weights)[:, None]
    heavy_PN = slopes_PN * weights
    square_PP = heavy_PN @ slopes_PN.T + 1e-9 * np.eye(4)
    ours_P, theirs_P = heavy_PN @ ours, heavy_PN @ theirs
    solved_P = np.linalg.solve(square_PP, theirs_P)
    above = np.sum(weights * theirs**2) - theirs_P @ solved_P
    below = np.sum(weights * ours * theirs) - ours_P @ solved_P
    factor = above / below if below > 0 else 1.0
    step = np.linalg.solve(square_PP, factor * ours_P - theirs_P)
    # Small enough to trust: 1 per cent, 2 pixels.
    return np.concatenate([np.clip(step[:2], -0.01, 0.01), np.clip(step[2:], -2.0, 2.0)])


def _weights(ours_HW: np.ndarray, theirs: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    apart_HW = np.zeros(ours_HW.shape)
    apart_HW[inside_HW] = ours_HW[inside_HW] - theirs
    local = blurred(apart_HW**2, 5.0)[inside_HW]
    return 1 / (1 + local / (2 * np.median(local) + 1e-6))


def _gain(
    ours_HW: np.ndarray, theirs_HW: np.ndarray, found: np.ndarray
) -> tuple[float, float, float]:
    """Return correlations as both lie and aligned, and the share of 4 x 4 parts that gain."""
    rows_HW, columns_HW = _grid(ours_HW.shape)
    inner_HW = np.ones(ours_HW.shape, bool)
    aligned_HW = np.zeros(ours_HW.shape)
    values, inside_HW = sampled(theirs_HW, *_moved(found, rows_HW, columns_HW))
    aligned_HW[inside_HW] = values
    inner_HW &= inside_HW
    parts = [
        (slice(y, y + height), slice(x, x + width))
        for height, width in [[max(4, side // 4) for side in ours_HW.shape]]
        for y in range(0, ours_HW.shape[0] - height + 1, height)
        for x in range(0, ours_HW.shape[1] - width + 1, width)
    ]
    gains = list[tuple[float, float]]()
    for part in parts:
        chosen = inner_HW[part]
        ours = ours_HW[part][chosen]
        if chosen.mean() < 0.5 or ours.std() < 0.1 * ours_HW.std():
            continue
        gain = _correlation(ours, aligned_HW[part][chosen]) - _correlation(
            ours, theirs_HW[part][chosen]
        )
        gains.append((gain, float(ours.std())))
    agreeing = sum(gain > -0.005 for gain, _ in gains) / len(gains) if gains else 0.0
    before = _correlation(ours_HW[inner_HW], theirs_HW[inner_HW])
    return before, _correlation(ours_HW[inner_HW], aligned_HW[inner_HW]), agreeing


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    whole = math.sqrt(float((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / whole if whole > 1e-12 else 0.0


def _grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of every pixel, from the middle."""
    rows, columns = (np.arange(side) - (side - 1) / 2 for side in shape)
    return np.repeat(rows[:, None], shape[1], 1), np.repeat(columns[None], shape[0], 0)


def _moved(
    found: np.ndarray, rows_HW: np.ndarray, columns_HW: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where in the other picture each pixel's content lies, in rows and columns."""
    a, b, x, y = found
    height, width = rows_HW.shape
    rows = b * columns_HW + (1 + a) * rows_HW + y + (height - 1) / 2
    columns = (1 + a) * columns_HW - b * rows_HW + x + (width - 1) / 2
    return rows, columns
