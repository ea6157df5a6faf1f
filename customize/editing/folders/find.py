"""From a folder, a pattern, one picture or a table to items; what cannot be one is a fault."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath

from customize.editing.folders.find_elsewhere import pictures_at, same_folder
from customize.editing.folders.items import Item, OutputFormat, output_name, printable
from customize.editing.folders.table import items_of_table
from customize.editing.masks import Mask
from customize.errors import EditError, Fault
from customize.files.remote import Remote, is_address
from customize.files.spelling import resolved
from customize.files.text import found_at, special_file
from customize.pairs.layouts.table_rows import TABLE_SUFFIXES
from customize.pairs.picture_files import CONVERT, FOREIGN_SUFFIXES, PICTURE_SUFFIXES, natural

MOST_ITEMS = 1_000_000
"""More are refused: their list alone would not fit in memory."""
_EXPECTED = (
    "expected a folder, a pattern in quotes such as 'shots/*.jpg', one picture, or a table "
    "(.csv, .jsonl)"
)


def find_items(
    what: str,
    instructions: Sequence[str],
    mask: Mask | None,
    kind: OutputFormat | None,
    besides: Path | Remote,
) -> list[Item | Fault]:
    """Return what `what` names, in natural order: a folder's pictures (subfolders too), a
    pattern's, one picture, or a table's rows. All but a table may be an address elsewhere.

    `besides` is the output's folder, never read from. Raises EditError where nothing is found.
    """
    path = Path(what)
    if special_file(path):
        raise EditError(f"{what}: it is {found_at(path)}; {_EXPECTED}; name another")
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        found = items_of_table(path, instructions, mask, kind)
    else:
        root, listed = (pictures_at if is_address(what) else _listed)(what, besides)
        masks = () if mask is None else (mask,)
        found = [
            one
            if isinstance(one, Fault)
            else Item(
                place=printable(str(one)),
                image=root / one,
                instructions=tuple(instructions),
                output=output_name(one, kind),
                masks=masks,
            )
            for one in listed
        ]
    if not found:
        raise EditError(f"{what}: no pictures there; {_EXPECTED}; check the path")
    return _without_clashes(found)


def beside_inputs(items: Iterable[Item], folder: Path | Remote) -> Iterator[Item | Fault]:
    """Pass items on, but for those whose answer would replace a picture or a mask that is read.

    `folder` is the output's, which may lie in the folder of the pictures.
    """
    listed, real = list(items), cache(os.path.realpath)

    def place(path: Path | Remote) -> str:
        if isinstance(path, Remote):
            return str(path)
        return os.path.join(real(path.parent), path.name)

    masks = (mask.file for item in listed for mask in item.masks if mask and mask.file)
    read = {place(path) for path in (*(item.image for item in listed), *masks)}
    for item in listed:
        if place(folder / item.output) in read:
            found = f"its answer {printable(str(item.output))} would replace what is read"
            yield Fault(item.place, found, "name another output")
        else:
            yield item


def _listed(what: str, besides: Path | Remote) -> tuple[Path, list[PurePosixPath | Fault]]:
    """Return the folder that names are relative to, and the names or faults found."""
    path, away = Path(what), resolved(besides) if isinstance(besides, Path) else None
    if path.is_dir():
        if away == resolved(path):
            raise same_folder(besides)
        return path, list(_in_folder(path, PurePosixPath(), away))
    if path.is_file():
        return path.parent, [PurePosixPath(path.name)]
    spelled = {what, *(unicodedata.normalize(form, what) for form in ("NFC", "NFD"))}
    found = {name for pattern in spelled for name in glob.iglob(pattern, recursive=True)}
    names = sorted(found, key=lambda name: natural(Path(name)))
    files = [Path(name) for name in names if not Path(name).is_dir()]
    if not files:
        return path, []
    parents = [str(file.parent) for file in files]
    root = Path(os.path.commonpath(parents))
    kept = [f for f in files if away is None or not resolved(f).is_relative_to(away)]
    return root, [PurePosixPath(f.relative_to(root).as_posix()) for f in kept]


def _in_folder(
    root: Path, inside: PurePosixPath, besides: Path | None
) -> Iterator[PurePosixPath | Fault]:
    """Yield pictures below `root`, without hidden files, links to folders and the output."""
    folder = root / inside
    try:
        entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=natural)
    except OSError as error:
        yield Fault(printable(str(inside)), f"cannot be read: {error.strerror}", "allow reading it")
        return
    for entry in entries:
        name = inside / entry.name
        here, suffix = printable(str(name)), entry.suffix.lower()
        if entry.is_symlink() and not os.path.exists(entry):
            yield Fault(here, "a link to nothing, or to itself", "mend or remove the link")
        elif entry.is_symlink() and entry.is_dir():
            yield Fault(here, "a link to a folder, which is not followed", "name that folder")
        elif entry.is_dir():
            if resolved(entry) != besides:
                yield from _in_folder(root, name, besides)
        elif suffix in FOREIGN_SUFFIXES:
            yield Fault(here, f"{suffix} files cannot be read", CONVERT)
        elif suffix in PICTURE_SUFFIXES:
            if entry.is_file():
                yield name
            else:
                yield Fault(here, found_at(entry), "copy the picture itself here")


def _without_clashes(found: Sequence[Item | Fault]) -> list[Item | Fault]:
    """Give outputs that would share a name (a.jpg and a.png as WebP) their whole source's name.

    A clash that is left, as when two rows name one output, is a fault of the later item.
    """
    items = [one for one in found if isinstance(one, Item)]
    if len(items) > MOST_ITEMS:
        raise EditError(f"{len(items)} pictures; expected at most {MOST_ITEMS}; edit them in parts")
    shared = Counter(_folded(item.output) for item in items)
    taken: dict[str, str] = {}
    answer: list[Item | Fault] = []
    for one in found:
        if isinstance(one, Fault):
            answer.append(one)
            continue
        output = one.output
        if shared[_folded(output)] > 1 and one.image.suffix.lower() != output.suffix:
            output = output.with_name(one.image.name + output.suffix)
        if other := taken.get(_folded(output)):
            found_here = f"its output {printable(str(output))} is that of {other} too"
            answer.append(
                Fault(one.place, found_here, "name another output, or rename the picture")
            )
            continue
        taken[_folded(output)] = one.place
        answer.append(replace(one, output=output))
    return answer


def _folded(output: PurePosixPath) -> str:
    """Compare as the strictest file systems do: whatever the case."""
    return str(output).casefold()
