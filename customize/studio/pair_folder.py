"""A folder of pairs that is worked on: pictures added, pairs mended, changes written at once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from customize.errors import Fault, StudioError
from customize.files import replacing, write_text
from customize.files.spelling import resolved
from customize.files.turn import in_turn
from customize.pairs.decode import load_picture
from customize.pairs.find import find_pairs
from customize.pairs.layouts.table_rows import read_rows
from customize.pairs.lint.lint_pairs import lint
from customize.pairs.picture_files import natural, one_line
from customize.shapes import Pair

TABLE = "pairs.jsonl"
MOST_PAIRS = 1000
_ROLE = re.compile(
    r"(?P<stem>.*?)[ _-]?(?P<role>before|after|source|target|start|end|original|edited|in|out|a|b)",
    re.IGNORECASE,
)
_FIRST = frozenset(["before", "source", "start", "original", "in", "a"])
Row = dict[str, Any]


@dataclass(frozen=True)
class PairFolder:
    """A folder in our own layout; pairs are numbered from 0, as they stand in the table.

    Pictures outside of `root`, the project folder, are never looked at, whoever wrote the table.
    """

    path: Path
    root: Path

    @property
    def table(self) -> Path:
        """The table of pairs."""
        return self.path / TABLE

    def pairs(self) -> list[Pair]:
        """Return the pairs, unfinished ones too: an instruction may still be empty."""
        return [self._pair(number, row) for number, row in enumerate(self._rows())]

    def add(self, pictures: Sequence[Path], instruction: str = "") -> list[str]:
        """Add uploaded pictures as pairs, and return what was found: pairs made, pictures left.

        Names decide: `1a` and `1b`, `dog_before` and `dog_after`; others pair up in order. Every
        picture is decoded and written anew. Raises PairsError for one that cannot be read, with
        nothing added.
        """
        matched, left = match_names(sorted(pictures, key=natural))
        decoded = [(load_picture(one), load_picture(other)) for one, other in matched]

        def added(rows: list[Row]) -> list[Row]:
            if len(rows) + len(decoded) > MOST_PAIRS:
                raise StudioError(f"more than {MOST_PAIRS} pairs; expected fewer; make another set")
            new = [
                {"source": self._keep(one), "instruction": text, "edited": self._keep(other)}
                for one, other in decoded
                for text in [one_line(instruction)]
            ]
            return [*rows, *new]

        self._change(added)
        told = [f"{len(matched)} pairs added"] if matched else []
        return told + [f"{path.name} has no partner and was left out" for path in left]

    def adopt(self, place: Path) -> str:
        """Take over the pairs at `place`, in any known layout; the pictures stay where they are.

        Raises PairsError, and StudioError where one of them is outside of the project.
        """
        found = find_pairs(place)
        for pair in found.pairs:
            self._check_inside(pair)

        def added(rows: list[Row]) -> list[Row]:
            return rows + [
                {
                    "source": os.path.relpath(pair.source, self.path),
                    "instruction": pair.instruction,
                    "edited": os.path.relpath(pair.target, self.path),
                }
                for pair in found.pairs
            ]

        self._change(added)
        return f"{len(found.pairs)} pairs added, laid out as {found.layout}"

    def say(self, number: int, instruction: str) -> None:
        """Give a pair another instruction."""
        self._change_one(number, lambda row: {**row, "instruction": one_line(instruction)})

    def swap(self, number: int) -> None:
        """Exchange source and edited picture."""
        self._change_one(
            number, lambda row: {**row, "source": row["edited"], "edited": row["source"]}
        )

    def align(self, number: int) -> None:
        """Cut the middle out of both pictures in one shape, the edited one scaled to the source."""

        def aligned(row: Row) -> Row:
            pair = self._pair(number, row)
            source, target = load_picture(pair.source), load_picture(pair.target)
            width = min(source.width, round(source.height * target.width / target.height))
            height = min(source.height, round(source.width * target.height / target.width))
            box = _middle(source.size, width / height)
            cut = source.crop(box)
            edited = target.crop(_middle(target.size, width / height))
            edited = edited.resize(cut.size, Image.Resampling.LANCZOS)
            return {**row, "source": self._keep(cut), "edited": self._keep(edited)}

        self._change_one(number, aligned)

    def use_word(self, number: int, word: str) -> None:
        """Write the concept's word for another such word, or after what is said without one."""

        def worded(row: Row) -> Row:
            said, count = re.subn(r"<[\w-]+>", word, row["instruction"])
            return {**row, "instruction": said if count else f"{said} {word}".strip()}

        self._change_one(number, worded)

    def drop(self, number: int) -> None:
        """Take a pair out of the table; its pictures stay in the folder."""
        self._change(lambda rows: [row for index, row in enumerate(rows) if index != number])

    def faults(
        self, resolution: int, word: str | None
    ) -> tuple[dict[int, list[Fault]], list[Fault]]:
        """Return what the lint finds, by the number of the pair, and what it says of all."""
        pairs = self.pairs()
        found: dict[int, list[Fault]] = {}
        rest: list[Fault] = []
        for fault in lint(pairs, resolution=resolution, word=word) if pairs else ():
            meant = [
                number
                for number, pair in enumerate(pairs)
                if pair.place in re.split(r", | and ", fault.place)
                or fault.place in (str(pair.source), str(pair.target))
            ]
            for number in meant:
                found.setdefault(number, []).append(fault)
            if not meant:
                rest.append(fault)
        return found, rest

    def _pair(self, number: int, row: Row) -> Pair:
        source, target = self.path / str(row["source"]), self.path / str(row["edited"])
        pair = Pair(source, str(row.get("instruction", "")), target, place=f"pair {number + 1}")
        self._check_inside(pair)
        return pair

    def _check_inside(self, pair: Pair) -> None:
        if not all(resolved(path).is_relative_to(self.root) for path in (pair.source, pair.target)):
            raise StudioError(
                f"{pair.place}: a picture is outside of the project folder; expected both inside; "
                "copy them into the project"
            )

    def _rows(self) -> list[Row]:
        if not self.table.is_file():
            return []
        rows = [row for row in read_rows(self.table, self.path) if not isinstance(row, Fault)]
        return [row for _, row in rows if {"source", "edited"} <= row.keys()]

    def _change_one(self, number: int, change: Callable[[Row], Row]) -> None:
        def changed(rows: list[Row]) -> list[Row]:
            if not 0 <= number < len(rows):
                raise StudioError(f"pair {number + 1}: it is gone; load the list again")
            return [change(row) if index == number else row for index, row in enumerate(rows)]

        self._change(changed)

    def _change(self, change: Callable[[list[Row]], list[Row]]) -> None:
        """Write the table that `change` makes of the present one, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        with in_turn(self.path / f".{TABLE}.lock"):
            rows = change(self._rows())
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(self.table, "".join(lines))

    def _keep(self, picture: Image.Image) -> str:
        """Write a picture under the name of its content, which says neither before nor after."""
        name = f"{hashlib.sha256(picture.tobytes()).hexdigest()[:16]}.png"
        if not (self.path / name).exists():
            with replacing(self.path / name) as temporary:
                picture.save(temporary, format="PNG")
        return name


def match_names(paths: Sequence[Path]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Return sources with their edited pictures, and what has no partner.

    >>> found, left = match_names([Path("1a.png"), Path("1b.png"), Path("x.png")])
    >>> [(one.name, other.name) for one, other in found], left[0].name
    ([('1a.png', '1b.png')], 'x.png')
    """
    halves: dict[str, dict[bool, Path]] = {}
    others: list[Path] = []
    for path in paths:
        said = _ROLE.fullmatch(path.stem)
        if said is None:
            others.append(path)
        else:
            halves.setdefault(said["stem"], {})[said["role"].lower() in _FIRST] = path
    matched = [(both[True], both[False]) for both in halves.values() if len(both) == 2]
    alone = [path for both in halves.values() if len(both) == 1 for path in both.values()]
    if not alone:
        matched += list(zip(others[::2], others[1::2], strict=False))
        others = others[-1:] if len(others) % 2 else []
    return matched, alone + others


def _middle(size: tuple[int, int], aspect: float) -> tuple[int, int, int, int]:
    """Return the box of the largest middle part of `size` (W, H) with this aspect ratio."""
    width, height = size
    kept_w, kept_h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - kept_w) // 2, (height - kept_h) // 2
    return left, top, left + kept_w, top + kept_h
