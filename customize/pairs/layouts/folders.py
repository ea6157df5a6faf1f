"""Pairs laid out by file names: folders with the same stems, or `ROOT_start` and `ROOT_end`.

Stems are compared whole: `image1` is never taken for `image10`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from customize.errors import Fault
from customize.files.spelling import as_stored, composed
from customize.pairs.picture_files import (
    Find,
    instruction_fault,
    name,
    one_line,
    overlooked,
    pictures_by_stem,
    read_text,
    visible,
)
from customize.shapes import Pair

FOR_ALL = "instruction.txt"
"""A file of this name beside the targets is the instruction of pairs without one of their own."""

ONE_SOURCE = "keep one: the base edits one picture at a time"


@dataclass(frozen=True)
class StemFolders:
    """Targets and texts in one folder, sources of the same stems in another (or several)."""

    targets: Path
    sources: tuple[Path, ...]
    root: Path
    text_suffix: str = ".txt"
    instruction: str | None = None
    weight: float = 1.0
    numbered: bool = False
    """Whether `dog_0.png` may be the source of `dog.png`, as in musubi-tuner."""


def read_stems(folders: StemFolders) -> Iterator[Find]:
    """Yield a pair for each target, and a fault for each file left without partner or text."""
    targets, root = pictures_by_stem(folders.targets), folders.root
    by_folder = [pictures_by_stem(folder) for folder in folders.sources]
    sources: dict[str, list[Path]] = {}
    for stem, paths in (item for listing in by_folder for item in listing.items()):
        whole = folders.numbered and re.fullmatch(r"(.+)_[0-9]+", stem)
        key = whole[1] if whole and stem not in targets and whole[1] in targets else stem
        sources.setdefault(key, []).extend(paths)
    for folder in (folders.targets, *folders.sources):
        yield from overlooked(folder, root, known=(folders.targets, *folders.sources))
    yield from _lone_texts(folders, targets)
    for stem, paths in targets.items():
        if stem not in sources:
            yield _no_partner(paths[0], root, "source", folders.sources[0], sources)
        elif len(sources[stem]) > 1:
            if len({path.stem for path in sources[stem]}) > 1 or len(by_folder) > 1:
                listed = ", ".join(name(path, root) for path in sources[stem])
                yield Fault(name(paths[0], root), f"several sources: {listed}", ONE_SOURCE)
        elif isinstance(text := _text_beside(folders, stem, paths[0]), Fault):
            yield text
        else:
            place = name(paths[0], root)
            yield Pair(sources[stem][0], text, paths[0], weight=folders.weight, place=place)
    for stem in sources.keys() - targets.keys():
        yield _no_partner(sources[stem][0], root, "target", folders.targets, targets)


def _no_partner(
    path: Path, root: Path, role: str, folder: Path, others: dict[str, list[Path]]
) -> Fault:
    close = difflib.get_close_matches(path.stem, others, n=1, cutoff=0.75)
    near = f" ({others[close[0]][0].name} is another stem)" if close else ""
    cure = f"add {name(folder, root)}/{path.stem}.png, with exactly this stem, or remove the file"
    return Fault(name(path, root), f"no {role} of that stem{near}", cure)


def _text_beside(folders: StemFolders, stem: str, target: Path) -> str | Fault:
    """Return the instruction for one stem: its own text file, else the one for all."""
    own = as_stored(folders.targets / f"{stem}{folders.text_suffix}")
    for path in (own, folders.targets / FOR_ALL):
        if path.is_file():
            text = read_text(path, folders.root)
            if isinstance(text, Fault) or one_line(text):
                return text if isinstance(text, Fault) else _bounded(text, path, folders.root)
            return Fault(name(path, folders.root), "empty", "write the instruction in it")
    if folders.instruction:
        return folders.instruction
    cure = f"write it in {own.name} beside the target, or one for all pairs in {FOR_ALL}"
    beside = (as_stored(folder / own.name) for folder in folders.sources)
    elsewhere = [path for path in beside if path.is_file()]
    if elsewhere:
        cure = f"move {name(elsewhere[0], folders.root)} beside the target"
    return Fault(name(target, folders.root), "no instruction", cure)


def _bounded(text: str, path: Path, root: Path) -> str | Fault:
    said = one_line(text)
    return instruction_fault(said, name(path, root)) or said


def _lone_texts(folders: StemFolders, targets: dict[str, list[Path]]) -> Iterator[Fault]:
    for entry in visible(folders.targets):
        is_lone = entry.suffix == folders.text_suffix and composed(entry.stem) not in targets
        if is_lone and entry.name not in (FOR_ALL, "README.txt", "LICENSE.txt"):
            cure = "rename it to the stem of its target, or remove it"
            yield Fault(name(entry, folders.root), "a text without a picture of its stem", cure)


def read_start_end(folder: Path) -> Iterator[Find]:
    """Yield the pairs of `ROOT_start.ext`, `ROOT_end.ext`, `ROOT.txt` (fal, lora-atelier)."""
    yield from overlooked(folder, folder)
    pictures = pictures_by_stem(folder)
    ends = {stem: re.fullmatch(r"(.+)_(start|end)", stem) for stem in pictures}
    roots = dict.fromkeys(match[1] for match in ends.values() if match)
    for stem, match in ends.items():
        if not match:
            cure = "name pictures ROOT_start and ROOT_end, with one of each for every ROOT"
            yield Fault(pictures[stem][0].name, "neither a start nor an end", cure)
    for root in roots:
        start, end = pictures.get(f"{root}_start"), pictures.get(f"{root}_end")
        if start is None or end is None:
            here, missing = (start or end or [folder])[0], "end" if end is None else "start"
            cure = f"add {root}_{missing}.png, or remove this one"
            yield Fault(here.name, f"no {root}_{missing} beside it", cure)
            continue
        text = _text_beside(StemFolders(folder, (), folder), root, end[0])
        yield text if isinstance(text, Fault) else Pair(start[0], text, end[0], place=end[0].name)
    yield from _lone_texts(StemFolders(folder, (), folder), {root: [] for root in roots})
