"""InstructPix2Pix's own layout: `NNNNNNN/{prompt.json, SEED_0.jpg, SEED_1.jpg}` and
`seeds.json`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from customize.errors import Fault
from customize.files.parse import parse_json
from customize.files.spelling import as_stored, composed
from customize.files.text import MOST_TABLE_BYTES, Unreadable
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


def read_numbered(root: Path) -> Iterator[Find]:
    """Yield a pair for every seed of every numbered folder.

    Where `seeds.json` is, it says which folders and seeds there should be; else all found are
    taken.
    """
    if (root / "seeds.json").is_file():
        listed = _seeds(root)
        if isinstance(listed, Fault):
            yield listed
            return
    else:
        listed = [(entry.name, None) for entry in visible(root) if _holds_prompt(entry)]
    for folder, seeds in listed:
        if (place := as_stored(root / folder)).is_dir():
            yield from _one_prompt(place, root, seeds)
        else:
            cure = "copy the folder here, or take it out of seeds.json"
            yield Fault(folder, "listed in seeds.json, but there is no such folder", cure)


def _holds_prompt(folder: Path) -> bool:
    return folder.is_dir() and bool((folder / "prompt.json").is_file() or pictures_by_stem(folder))


def _seeds(root: Path) -> list[tuple[str, list[str] | None]] | Fault:
    rows = _json(root / "seeds.json", root)
    shape = 'expected [["0000000", ["SEED", ...]], ...]'
    if isinstance(rows, Fault):
        return rows
    listed: list[tuple[str, list[str] | None]] = []
    for row in rows if isinstance(rows, list) else [rows]:
        match row:
            case [str() | int() as folder, [*seeds]]:
                listed.append((str(folder), [str(seed) for seed in seeds]))
            case _:
                return Fault("seeds.json", f"{row!r:.60} is not a folder with its seeds", shape)
    return listed


def _json(path: Path, root: Path) -> Any:
    text = read_text(path, root, MOST_TABLE_BYTES)
    if isinstance(text, Fault):
        return text
    try:
        return parse_json(text)
    except Unreadable as error:
        return Fault(name(path, root), error.found, error.cure)


def _one_prompt(folder: Path, root: Path, seeds: list[str] | None) -> Iterator[Find]:
    yield from overlooked(folder, root)
    pictures = pictures_by_stem(folder)
    prompt = _prompt(folder, root)
    if isinstance(prompt, Fault):
        yield prompt
    if seeds is None:
        halves = (re.fullmatch(r"(.+)_[01]", stem) for stem in pictures)
        seeds = list(dict.fromkeys(half[1] for half in halves if half))
        if not seeds:
            cure = "name pictures SEED_0 (source) and SEED_1 (target)"
            yield Fault(name(folder, root), "no SEED_0 and SEED_1 pictures", cure)
    for seed in seeds:
        seed = composed(seed)
        source, target = pictures.get(f"{seed}_0"), pictures.get(f"{seed}_1")
        if source is None or target is None:
            lost = f"{seed}_0" if source is None else f"{seed}_1"
            cure = "add it, or remove the seed's other picture and its entry in seeds.json"
            yield Fault(name(folder, root), f"no picture {lost}", cure)
        elif not isinstance(prompt, Fault):
            edit, before, after = prompt
            place = f"{name(folder, root)}/{seed}"
            yield Pair(source[0], edit, target[0], before, after, place=place)


def _prompt(folder: Path, root: Path) -> tuple[str, str | None, str | None] | Fault:
    """Return instruction and both captions; the paper's files say `caption` or `input`."""
    path = folder / "prompt.json"
    if not path.is_file():
        return Fault(name(path, root), "no such file", 'write {"edit": "the instruction"} in it')
    match _json(path, root):
        case Fault() as fault:
            return fault
        case {"edit": str() as edit, **rest} if one_line(edit):
            before, after = rest.get("input", rest.get("caption")), rest.get("output")
            captions = [text if isinstance(text, str) else None for text in (before, after)]
            texts = [one_line(edit), *(text for text in captions if text)]
            faults = (instruction_fault(text, name(path, root)) for text in texts)
            return next(filter(None, faults), (texts[0], captions[0], captions[1]))
        case _:
            return Fault(name(path, root), "no instruction", 'write it under "edit"')
