"""Pairs never trained on, or plain pictures that take the trained instructions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from customize.pairs.find import find_pairs
from customize.pairs.picture_files import pictures_by_stem, visible
from customize.shapes import Pair


def held_out_pairs(path: Path, trained: Sequence[Pair], *, references: bool = False) -> list[Pair]:
    """Return the pairs at `path`; plain pictures take the trained instructions, in turn.

    A picture without a target is its own: `Shown` says which are. Raises PairsError,
    also for pairs of several sources without use for `references`.
    """
    if pictures := list(_plain_pictures(path)):
        instructions = list(dict.fromkeys(pair.instruction for pair in trained))
        return [
            Pair(picture, instructions[index % len(instructions)], picture, place=picture.name)
            for index, picture in enumerate(pictures)
        ]
    return list(find_pairs(path, references=references).pairs)


def _plain_pictures(path: Path) -> Iterator[Path]:
    """List the pictures of a folder that holds nothing else, which no layout of pairs does."""
    if not path.is_dir():
        return
    pictures = pictures_by_stem(path)
    paths = [picture for same in pictures.values() for picture in same]
    if {*paths} == {*visible(path)} and not any(s.endswith(("_start", "_end")) for s in pictures):
        yield from paths
