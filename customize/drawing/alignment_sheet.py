"""Pairs aligned: corrected copies beside a sheet that shows each before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from customize.drawing.contact_sheet import contact_sheet
from customize.drawing.overlay import overlay
from customize.files import make_folder
from customize.pairs.decode import load_picture
from customize.pairs.lint.misaligned import alignment_of, corrected, is_off, spelled_out
from customize.shapes import Pair

SHEET = "alignment.png"
TITLES = ("as it lies", "pair", "aligned")


def write_aligned(pairs: Sequence[Pair], alpha_color: str, folder: Path) -> list[list[str]]:
    """Write copies of all pairs into a new `folder`, with their sheet.

    Pairs that lie apart are corrected and cut to what both show, the others stay. Returns a row for
    each: its place, how its target lies, how far, what was done. Raises PairsError for pictures
    that cannot be read.
    """
    make_folder(folder)
    rows, lines, shown = list[list[str]](), list[str](), list[list[Image.Image | str]]()
    for number, pair in enumerate(pairs, start=1):
        source, target = (load_picture(p, alpha_color) for p in (pair.source, pair.target))
        found = alignment_of(source, target)
        ours, theirs, done = source, target, "as it was"
        if found is not None and is_off(found, source.size):
            (ours, theirs), done = corrected(source, target, found), "corrected"
        said, apart = "it cannot be told", "-"
        if found is not None and found.certain:
            said, apart = spelled_out(found), f"{found.distance(source.size):.1f}"
        rows.append([pair.place, said, apart, done])
        text = f"{pair.place}\n\n{said}\n\n{done}"
        shown.append([overlay(source, target), text, overlay(ours, theirs)])
        lines.append(_saved(pair, number, ours, theirs, folder))
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    contact_sheet(shown, TITLES).save(folder / SHEET)
    return rows


def _saved(pair: Pair, number: int, source: Image.Image, target: Image.Image, folder: Path) -> str:
    """Save a pair's pictures and return its line; references are copied as they are."""
    names = [f"{number}_source.png", f"{number}_edited.png"]
    for name, picture in zip(names, (source, target), strict=True):
        picture.save(folder / name)
    sources = [names[0]]
    for index, path in enumerate(pair.references, start=2):
        sources.append(f"{number}_source_{index}{path.suffix}")
        shutil.copyfile(path, folder / sources[-1])
    row = {
        "source": sources if pair.references else names[0],
        "instruction": pair.instruction,
        "edited": names[1],
        "source_caption": pair.source_caption,
        "edited_caption": pair.target_caption,
        "weight": None if pair.weight == 1 else pair.weight,
    }
    return json.dumps({key: value for key, value in row.items() if value is not None}) + "\n"
