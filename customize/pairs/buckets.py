"""Pictures of any shape to a few sizes the base learns at, source and target always cut alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image

from customize.errors import Fault, PairsError
from customize.pairs.decode import load_picture
from customize.pairs.recolor import recolored
from customize.shapes import Example, Pair

WIDEST = 3.0
"""Aspect ratio of the longest bucket; longer pictures lose their ends."""

SAME_ASPECT = 0.01
"""Relative difference up to which two pictures of a pair count as the same frame at two scales."""


@dataclass(frozen=True)
class Crop:
    """Which part of the frame to take: the largest part of the bucket's shape divided by `zoom`.

    `x` and `y` place it between the left or top edge (0) and the right or bottom one (1).
    """

    x: float = 0.5
    y: float = 0.5
    zoom: float = 1.0


def bucket_for(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """Return the bucket (W, H) nearest in aspect ratio.

    Buckets have multiples of `multiple` as sides and about `resolution`² pixels. A coarser
    `multiple` gives fewer buckets, so more pictures share one. Pixels throughout.

    >>> bucket_for(4000, 3000, 512, 64)
    (576, 448)
    """
    assert min(width, height) > 0
    assert resolution >= multiple > 0
    if width < height:  # turned, so that a picture and its transpose agree even in ties
        tall, wide = bucket_for(height, width, resolution, multiple)
        return wide, tall
    aspect = math.log(min(width / height, WIDEST))
    sizes = _buckets(resolution, multiple)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), size))


@lru_cache(maxsize=32)
def _buckets(resolution: int, multiple: int) -> tuple[tuple[int, int], ...]:
    """Return one bucket a short side, both ways round: the long side nearest in area."""
    area, sizes = resolution**2, set[tuple[int, int]]()
    square = max(1, round(resolution / multiple))
    for short in range(max(1, round(square / math.sqrt(WIDEST))), square + 1):
        long = max(short, round(area / (short * multiple**2)))
        sizes |= {(short * multiple, long * multiple), (long * multiple, short * multiple)}
    sizes.add((square * multiple, square * multiple))
    return tuple(sorted(sizes))


def crops(count: int, seed: int) -> tuple[Crop, ...]:
    """Return `count` crops: the whole frame, then closer ones (up to 1.25 times) anywhere."""
    random = Random(seed)
    others = [
        Crop(random.random(), random.random(), random.uniform(1.05, 1.25)) for _ in range(count - 1)
    ]
    return (Crop(), *others)


def load_example(
    pair: Pair,
    size: tuple[int, int],
    *,
    flip: bool = False,
    alpha_color: str = "#ffffff",
    crop: Crop | None = None,
    other_colors: int | None = None,
) -> Example:
    """Return the pair as pixels of `size` (W, H), the same crop and flip on both pictures.

    References keep their sizes; they are flipped with the pair. With a number for `other_colors`,
    what changes in the source has colours drawn by it.

    A target of another size than its source is taken as the same frame at another scale if the
    aspect ratios agree within 1 %. Raises PairsError if they do not, or if a picture cannot be
    read.
    """
    source, target = load_picture(pair.source, alpha_color), load_picture(pair.target, alpha_color)
    if not same_frame(source.size, target.size):
        raise PairsError("pair", [frame_fault(pair, source.size, target.size)])
    box = crop_box(source.size, size, crop or Crop())
    scale_x, scale_y = target.width / source.width, target.height / source.height
    target_box = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
    source_HWC, target_HWC = _cut(source, box, size, flip), _cut(target, target_box, size, flip)
    if other_colors is not None:
        source_HWC = recolored(source_HWC, target_HWC, other_colors)
    return Example(
        source_HWC=source_HWC,
        target_HWC=target_HWC,
        instruction=pair.instruction,
        source_caption=pair.source_caption,
        target_caption=pair.target_caption,
        weight=pair.weight,
        references_HWC=tuple(
            _cut(picture, (0, 0, *picture.size), picture.size, flip)
            for picture in (load_picture(path, alpha_color) for path in pair.references)
        ),
    )


def crop_box(
    frame: tuple[int, int], size: tuple[int, int], crop: Crop
) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the part of `frame` (W, H) shaped like `size`."""
    scale = min(frame[0] / size[0], frame[1] / size[1]) / max(crop.zoom, 1.0)
    width, height = min(size[0] * scale, frame[0]), min(size[1] * scale, frame[1])
    left, top = (frame[0] - width) * crop.x, (frame[1] - height) * crop.y
    return left, top, min(left + width, frame[0]), min(top + height, frame[1])


def same_frame(source: tuple[int, int], target: tuple[int, int]) -> bool:
    """Say whether two sizes (W, H) have the same aspect ratio within 1 %.

    >>> same_frame((640, 480), (1280, 960)), same_frame((640, 480), (480, 640))
    (True, False)
    """
    ratio = (source[0] * target[1]) / (source[1] * target[0])
    return abs(ratio - 1) <= SAME_ASPECT


def frame_fault(pair: Pair, source: tuple[int, int], target: tuple[int, int]) -> Fault:
    """Return the fault of a pair whose pictures show different frames."""
    found = f"source is {source[0]}x{source[1]}, target {target[0]}x{target[1]}: different shapes"
    return Fault(pair.place or str(pair.target), found, "crop both to the same part of the scene")


def _cut(
    image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int], flip: bool
) -> np.ndarray:
    cut = image.resize(size, Image.Resampling.LANCZOS, box=box)
    if flip:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(cut)
