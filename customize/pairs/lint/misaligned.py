"""Faults of pairs whose pictures lie beside one another, and corrected copies of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from customize.errors import Fault, PairsError
from customize.pairs.buckets import same_frame
from customize.pairs.decode import load_picture
from customize.pairs.lint.alignment import Alignment, alignment
from customize.pairs.lint.pictures import stamp
from customize.shapes import Pair

VISIBLE = 0.4
"""Pixels apart, root mean square, that are told: more than the measure itself errs."""
GAIN = 0.005
"""Of the correlation, below which nothing is gained by moving the target."""
LEAST_SIDE = 48
"""Smaller pictures, in pixels, hold too little to compare."""
CURE = "align them: `customize check RECIPE --align FOLDER` writes corrected copies"


def alignment_of(source: Image.Image, target: Image.Image) -> Alignment | None:
    """Measure two pictures; None for those too small and of other frames."""
    if min(source.size) < LEAST_SIDE or not same_frame(source.size, target.size):
        return None
    return alignment(source, target)


def is_off(found: Alignment | None, size: tuple[int, int]) -> bool:
    """Tell whether pictures of `size` (W, H) lie apart so that it shows, for certain."""
    if found is None or not found.certain or found.after - found.before < GAIN:
        return False
    return found.distance(size) >= VISIBLE


def alignment_faults(pairs: Sequence[Pair], alpha_color: str) -> Iterator[Fault]:
    """Yield a warning for each pair whose target lies beside its source.

    What was measured is remembered while both files stay as they are.
    """
    for pair in pairs:
        stamps = stamp(pair.source), stamp(pair.target)
        try:
            found, size = _measured(pair.source, pair.target, alpha_color, stamps)
        except PairsError:  # told by whoever looks at the pictures
            continue
        if found is not None and is_off(found, size):
            said = f"the target lies beside the source: {spelled_out(found)}"
            yield Fault(pair.place, said, CURE, "warning")


@lru_cache(maxsize=2048)
def _measured(
    source: Path, target: Path, alpha_color: str, _: object
) -> tuple[Alignment | None, tuple[int, int]]:
    """Return how the pictures of two files lie, and the source's size (W, H)."""
    before, after = load_picture(source, alpha_color), load_picture(target, alpha_color)
    return alignment_of(before, after), before.size


def spelled_out(found: Alignment) -> str:
    """Say how pictures lie apart.

    >>> spelled_out(Alignment(1.04, -0.5, 1.01, 0.0, 0.5, 0.9, 1.0))
    '1.0 pixels right, 0.5 up, 1.0 % larger'
    """
    across, down = ("right", "left")[found.x < 0], ("down", "up")[found.y < 0]
    parts = [f"{abs(found.x):.1f} pixels {across}", f"{abs(found.y):.1f} {down}"]
    if abs(found.scale - 1) >= 0.001:
        size = "larger" if found.scale > 1 else "smaller"
        parts.append(f"{abs(found.scale - 1):.1%} {size}".replace("%", " %"))
    if abs(found.degrees) >= 0.05:
        way = "clockwise" if found.degrees > 0 else "counterclockwise"
        parts.append(f"turned {abs(found.degrees):.1f} degrees {way}")
    return ", ".join(parts)


def corrected(
    source: Image.Image, target: Image.Image, found: Alignment
) -> tuple[Image.Image, Image.Image]:
    """Return both cut to what they share, the target moved to where the source shows the same."""
    if target.size != source.size:
        target = target.resize(source.size, Image.Resampling.LANCZOS)
    width, height = source.size
    turned = found.scale * complex(
        math.cos(math.radians(found.degrees)), math.sin(math.radians(found.degrees))
    )
    a, b = turned.real, turned.imag
    middle_x, middle_y = width / 2, height / 2
    rows = (
        *(a, -b, middle_x + found.x - a * middle_x + b * middle_y),
        *(b, a, middle_y + found.y - b * middle_x - a * middle_y),
    )
    moved = target.convert("RGB").transform(
        source.size, Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC
    )
    box = _shared(source.size, np.array(rows).reshape(2, 3))
    return source.convert("RGB").crop(box), moved.crop(box)


def _shared(size: tuple[int, int], rows: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box of a source of `size` (W, H) all of which its target shows.

    Each side is drawn in by what its two corners lack there, and a pixel more for interpolation.
    """
    width, height = size
    corners = {(x, y): rows @ (x, y, 1) for x in (0, width) for y in (0, height)}

    def lacking(axis: int, end: int) -> int:
        limit = size[axis] * end
        places = [place[axis] for corner, place in corners.items() if corner[axis] == limit]
        lack = max((p - limit) if end else (limit - p) for p in places)
        return math.ceil(lack + 1) if lack > 1e-6 else 0

    return lacking(0, 0), lacking(1, 0), width - lacking(0, 1), height - lacking(1, 1)
