"""What the pictures of a pair look like at a glance, and what that alone can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, product
from operator import add, itemgetter
from pathlib import Path

import numpy as np
from PIL import Image

from customize.errors import Fault, PairsError
from customize.pairs.buckets import WIDEST, frame_fault, same_frame
from customize.pairs.decode import exif_entry, load_picture, opened_picture
from customize.pairs.recolor import changed_share
from customize.shapes import Pair

THUMB = 32
NEAR_LEVELS = 4.0
"""Two thumbnails are of one picture when no cell differs by more than this, of 255 levels.

A cell is the mean of thousands of pixels, so compression noise stays below 2 while a small edit
stands out.
"""
HUGE_SIDE = 6000
MOST_CHANGED = 0.6
"""Share of a picture that a thing which is replaced hardly fills."""


@dataclass(frozen=True)
class Glance:
    """A picture at a glance: size (W, H), thumbnail in 0..255, whether a camera signed it."""

    size: tuple[int, int]
    thumb_HWC: np.ndarray
    camera: bool

    @property
    def brightness(self) -> float:
        """Mean level, 0..255."""
        return float(self.thumb_HWC.mean())

    @property
    def colourfulness(self) -> float:
        """Mean spread between the strongest and weakest channel, 0..255; 0 for grey pictures."""
        return float(np.ptp(self.thumb_HWC, axis=2).mean())


@dataclass(frozen=True)
class SeenPair:
    """A pair whose two pictures could be read."""

    pair: Pair
    source: Glance
    target: Glance


def look_at(path: Path, alpha_color: str) -> Glance:
    """Return the look of one picture, remembered while its file stays as it is.

    Raises PairsError as `load_picture` does.
    """
    return _look_at(path, alpha_color, stamp(path))


def stamp(path: Path) -> tuple[int, int]:
    """Return what a file is known by while it stays as it is: its size and time."""
    try:
        file = path.stat()
    except OSError:
        return 0, 0  # what is wrong is said by whoever opens it
    return file.st_size, file.st_mtime_ns


@lru_cache(maxsize=2048)
def _look_at(path: Path, alpha_color: str, _: tuple[int, int]) -> Glance:
    picture = load_picture(path, alpha_color)
    thumb = picture.resize((THUMB, THUMB), Image.Resampling.BOX)
    with opened_picture(path) as opened:
        camera = bool(exif_entry(opened, 0x010F))  # EXIF Make
    return Glance(picture.size, np.asarray(thumb, dtype=np.float32), camera)


def look_at_all(pairs: Sequence[Pair], alpha_color: str) -> tuple[list[SeenPair], list[Fault]]:
    """Return the readable pairs, and an error for every unreadable picture."""
    looks: dict[Path, Glance | None] = {}
    faults: list[Fault] = []
    for path in (path for pair in pairs for path in (pair.source, pair.target, *pair.references)):
        if path not in looks:
            try:
                looks[path] = look_at(path, alpha_color)
            except PairsError as error:
                looks[path] = None
                faults += error.faults
    seen: list[SeenPair] = []
    for pair in pairs:
        source, target = looks[pair.source], looks[pair.target]
        if source is not None and target is not None:
            seen.append(SeenPair(pair, source, target))
    return seen, faults


def near(a: Glance, b: Glance) -> bool:
    """Say whether two looks are of one picture, small compression noise aside."""
    return bool(np.abs(a.thumb_HWC - b.thumb_HWC).max() <= NEAR_LEVELS)


def size_faults(seen: Sequence[SeenPair], resolution: int) -> Iterator[Fault]:
    """Yield faults in sizes: within a pair, and against the resolution trained at."""
    for item in seen:
        source, target = item.source.size, item.target.size
        if not same_frame(source, target):
            yield frame_fault(item.pair, source, target)
        elif source != target:
            found = f"source is {source[0]}x{source[1]}, target {target[0]}x{target[1]}"
            cure = "the target is scaled to the source; make sure that they line up"
            yield Fault(item.pair.place, found, cure, "warning")
    sizes = {s.pair.source: s.source.size for s in seen} | {
        s.pair.target: s.target.size for s in seen
    }
    for path, (width, height) in sizes.items():
        size = f"{width}x{height}"
        if width * height < (resolution / 2) ** 2:
            found = f"tiny: {size} for training at {resolution}"
            yield Fault(str(path), found, "use a larger original; this one is blown up", "warning")
        elif max(width, height) > HUGE_SIDE:
            cure = "shrink it: reading it takes long and training sees none of the detail"
            yield Fault(str(path), f"huge: {size}", cure, "warning")
        if max(width, height) > WIDEST * min(width, height):
            found = f"{size} is longer than {WIDEST:g} to 1"
            yield Fault(str(path), found, "its ends are cut off: crop it yourself", "warning")


def copy_faults(seen: Sequence[SeenPair]) -> Iterator[Fault]:
    """Yield pairs whose target equals the source, unless that is what they ask for."""
    for item in seen:
        if item.source.size != item.target.size or asks_for_nothing(item.pair.instruction):
            continue
        exact = np.array_equal(item.source.thumb_HWC, item.target.thumb_HWC)
        if exact and _same_bytes(item.pair.source, item.pair.target):
            found, cure = (
                "target and source are the same picture",
                "give the edited picture as target",
            )
            yield Fault(item.pair.place, found, cure)
        elif near(item.source, item.target):
            found = "target is nearly identical to the source"
            cure = "check that the edit is in it; such a pair teaches to change nothing"
            yield Fault(item.pair.place, found, cure, "warning")


def asks_for_nothing(instruction: str) -> bool:
    """Say whether an instruction wants the picture kept, as pairs that teach restraint do."""
    said = instruction.lower()
    return any(w in said for w in ("unchanged", "as it is", "as is", "do nothing", "no change"))


def whole_change_faults(seen: Sequence[SeenPair]) -> Iterator[Fault]:
    """Yield pairs whose edit changes nearly all of the picture, where colours are to be varied."""
    for each in seen:
        share = changed_share(each.source.thumb_HWC, each.target.thumb_HWC)
        if share > MOST_CHANGED:
            found = f"{share:.0%} of the picture changes, and pairs are also trained recoloured"
            cure = "set recolored: 0: a look depends on the colours that were there"
            yield Fault(each.pair.place, found, cure, "warning")


def duplicate_faults(seen: Sequence[SeenPair]) -> Iterator[Fault]:
    """Yield pairs that repeat an earlier one: same instruction, and pictures alike.

    Only pairs whose sources' quarters are about as bright are compared, not each with every other.
    """
    kept: dict[tuple[str, tuple[int, ...]], list[tuple[int, SeenPair]]] = {}
    for index, item in enumerate(seen):
        said, place = item.pair.instruction.lower(), _brightness_of_quarters(item.source)
        around = (tuple(map(add, place, step)) for step in product((-1, 0, 1), repeat=len(place)))
        earlier = sorted(
            chain.from_iterable(kept.get((said, spot), ()) for spot in around), key=itemgetter(0)
        )
        for _, other in earlier:
            if near(item.source, other.source) and near(item.target, other.target):
                found = f"the same pair as {other.pair.place}"
                yield Fault(item.pair.place, found, "remove one, or use its `weight`", "warning")
                break
        else:
            kept.setdefault((said, place), []).append((index, item))


def _brightness_of_quarters(look: Glance) -> tuple[int, ...]:
    """Count the mean level of a picture's quarters in steps so wide that near ones are neighbours.

    Where no cell of two thumbnails differs by more than `NEAR_LEVELS`, no mean of cells does.
    """
    half = THUMB // 2
    quarters = look.thumb_HWC.reshape(2, half, 2, half, 3).mean(axis=(1, 3, 4))
    return tuple(int(level) for level in np.floor(quarters.flatten() / (NEAR_LEVELS + 0.01)))


def _same_bytes(a: Path, b: Path) -> bool:
    return a.samefile(b) or a.read_bytes() == b.read_bytes()
