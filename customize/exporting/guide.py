"""The README of a folder that holds every export: which file goes where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from customize.exporting import Target, Written
from customize.exporting.places import write_text

NAME = "README.md"


def write(folder: Path, written: Sequence[Written], refused: Mapping[Target, str]) -> Path:
    """Write the README in place of an older one and return its path."""
    path = folder / NAME
    write_text(path, "\n".join(_lines(written, refused)) + "\n")
    return path


def _lines(written: Sequence[Written], refused: Mapping[Target, str]) -> Iterator[str]:
    yield "# Which file goes where\n"
    yield "All of these edit pictures, so they need an InstructPix2Pix model to work on.\n"
    yield "| folder | size | largest relative error of a layer |"
    yield "| --- | --- | --- |"
    for one in written:
        size = sum(path.stat().st_size for path in one.files) / 1e6
        yield f"| {one.target} | {size:.1f} MB | {one.largest_error:.1e} |"
    for one in written:
        yield f"\n## {one.target}\n"
        yield from (f"- {note}" for note in one.notes)
    if refused:
        yield "\n## Not written\n"
        yield from (f"- {reason}" for reason in refused.values())
