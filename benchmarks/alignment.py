"""How exactly planted shifts and scales are found between photographs of different looks.

    python benchmarks/alignment.py --count 30

Cuts squares out of the photographs that ship in scikit-image and scikit-learn, plants seven
movements in each, and changes the moved one's look (inverted, two colours, other channels, few
levels, blurred, drawn). Prints, for each movement, how many are found to 0.2 pixels and 0.3 %, the
largest errors, and how many are told as apart; about a second of processor time each.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from customize.embedded.world.photos import TEST_PHOTOS, TRAINING_PHOTOS, photo
from customize.pairs.lint.alignment import alignment
from customize.pairs.lint.misaligned import is_off

LARGEST, AROUND = 420, 20
PLANTED = (
    *((0.5, 0.0, 1.0), (0.0, 1.0, 1.0), (-2.0, 0.0, 1.0), (3.0, 4.0, 1.0)),
    *((0.0, 0.0, 1.01), (0.0, 0.0, 0.98), (0.0, 0.0, 1.0)),
)
LOOKS: tuple[Callable[[Image.Image], Image.Image], ...] = (
    ImageOps.invert,
    lambda p: ImageOps.colorize(ImageOps.grayscale(p), "#102040", "#ffcc66"),
    lambda p: Image.fromarray((np.asarray(p)[..., [2, 0, 1]] * 0.6 + 40).astype(np.uint8)),
    lambda p: ImageOps.posterize(p, 3),
    lambda p: p.filter(ImageFilter.GaussianBlur(0.7)),
    lambda p: ImageOps.grayscale(p).convert("RGB").filter(ImageFilter.EDGE_ENHANCE_MORE),
)


def main() -> None:
    """Measure every movement on every photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    rows: dict[tuple[float, float, float], list[tuple[float, float, bool]]] = {}
    for number, (picture, box) in enumerate(squares(parser.parse_args().count)):
        source, look = picture.crop(box), LOOKS[number % len(LOOKS)]
        for x, y, scale in PLANTED:
            found = alignment(source, look(moved(picture, box, x, y, scale)))
            errors = math.hypot(found.x - x, found.y - y), abs(found.scale / scale - 1)
            rows.setdefault((x, y, scale), []).append((*errors, is_off(found, source.size)))
    print("planted (x, y, scale) | found | largest error, px | largest error, scale | told")
    for planted, errors in rows.items():
        right = sum(shift <= 0.2 and scale <= 0.003 for shift, scale, _ in errors)
        worst = max(shift for shift, *_ in errors), max(scale for _, scale, _ in errors)
        told = sum(off for *_, off in errors)
        print(f"{planted} | {right} of {len(errors)} | {worst[0]:.3f} | {worst[1]:.3%} | {told}")


def squares(count: int) -> Iterator[tuple[Image.Image, tuple[int, int, int, int]]]:
    """Yield photographs in turn, with a random square of each."""
    random, names = np.random.default_rng(0), (*TRAINING_PHOTOS, *TEST_PHOTOS)
    for number in range(count):
        picture = photo(names[number % len(names)])
        side = min(LARGEST, min(picture.size) - 2 * AROUND)
        x = int(random.integers(AROUND, picture.width - side - AROUND + 1))
        y = int(random.integers(AROUND, picture.height - side - AROUND + 1))
        yield picture, (x, y, x + side, y + side)


def moved(
    picture: Image.Image, box: tuple[int, int, int, int], x: float, y: float, scale: float
) -> Image.Image:
    """Cut the square again, its content moved by (x, y) pixels and enlarged about its middle."""
    side = box[2] - box[0]
    left = (box[0] + box[2]) / 2 - (x + side / 2) / scale
    top = (box[1] + box[3]) / 2 - (y + side / 2) / scale
    extent = left, top, left + side / scale, top + side / scale
    return picture.transform((side, side), Image.Transform.EXTENT, extent, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
