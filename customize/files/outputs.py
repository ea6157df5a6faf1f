"""Where an output may go: one rule for every command, checked before anything is written.

An output is never an input, nor in a folder that is one. A folder of outputs is not around an input
either, and is no whole disk, no home folder, not the working folder, and nobody else's data.

`os.path` rather than `Path`, whose questions raise errors for names that no file can have.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from customize.errors import OutputError
from customize.files.disk import existing, refused
from customize.files.manifest import NAME as MANIFEST

_LONGEST = 255
"""Bytes of a name on the file systems in use."""
_TABLES = ("pairs.jsonl", "metadata.jsonl", "metadata.csv", "metadata.json", "seeds.json")
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
_PARTNERS = (
    frozenset(("images", "image", "targets", "target", "edited", "after")),
    frozenset(("control", "controls", "sources", "source", "inputs", "before", "originals")),
)
_MODEL = "model_index.json"
_MOST_LOOKED_AT = 2000
"""Entries of a folder that are looked at for somebody's data: enough for a shelf of data sets."""


@dataclass(frozen=True)
class Used:
    """Something a command reads, and what it is to the user ("the pairs of my_dog").

    A folder of outputs may hold the file where `shared` says so, as a run's folder does its
    adapter: what is written there never replaces it.
    """

    what: str
    path: Path
    shared: bool = False


def check_place(output: Path, used: Iterable[Used] = (), *, folder: bool = False) -> None:
    """Raise OutputError for a file, or a `folder`, that must not or cannot be written."""
    if "\0" in str(output):
        raise OutputError(
            f"output {str(output)!r}: a zero byte in a name; expected the path of a file or folder",
            "name another output",
        )
    name, place = f"output {output}", Path(os.path.realpath(output))
    cure = "choose a folder of its own, such as runs/my_dog" if folder else "choose another file"
    for found in _faults(place, used, folder):
        raise OutputError(f"{name}: {found}; expected a place of its own", cure)
    _check_possible(output, folder)


def _faults(place: Path, used: Iterable[Used], folder: bool) -> Iterator[str]:
    if folder:
        yield from _too_much(place)
    for one in used:
        if found := _meets(place, one, folder):
            yield found
    if folder:
        yield from _others_data(place)


def _too_much(place: Path) -> Iterator[str]:
    """Say of folders that hold everything a person has."""
    homes = {Path(os.path.realpath(os.path.expanduser("~"))), Path("/root")}
    if place == Path(place.anchor):
        yield "it is the whole disk"
    elif place in homes or str(place.parent) in ("/home", "/Users"):
        yield "it is a home folder"
    elif any(place in home.parents for home in homes):
        yield "it holds the home folders"
    elif place == Path(os.path.realpath(os.curdir)):
        yield "it is the working folder"


def _meets(place: Path, one: Used, folder: bool) -> str | None:
    """Say how an output and an input lie to one another, None where they are apart."""
    theirs = Path(os.path.realpath(one.path))
    if place == theirs or _same(place, theirs):
        return f"it is {one.what}"
    if theirs in place.parents and os.path.isdir(theirs):
        return f"it lies in {one.what}, {one.path}"
    if folder and place in theirs.parents and not one.shared:
        return f"it holds {one.what}, {one.path}"
    return None


def _same(one: Path, other: Path) -> bool:
    """Tell two names of one file, hard links and letters of another case included."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _others_data(place: Path) -> Iterator[str]:
    """Say where a folder is, holds or lies in pairs or a model that no run of ours wrote."""
    for above in place.parents:
        if os.path.isfile(above / _MODEL):
            yield f"it lies in the model {above}"
        elif _holds_pairs(above) and _holds_pictures(above):
            yield f"it lies in the pairs {above}"
    if not os.path.isdir(place) or os.path.isfile(place / MANIFEST):
        return
    for inside in _folders(place):
        if os.path.isfile(inside / _MODEL):
            yield f"it {'is' if inside == place else 'holds'} the model {inside}"
        elif _holds_pairs(inside):
            yield f"it {'is' if inside == place else 'holds'} the pairs {inside}"


def _folders(place: Path) -> Iterator[Path]:
    """Yield a folder and those inside it, two levels deep, but for the runs among them."""
    yield place
    looked_at = 0
    for depth in ("*/", "*/*/"):
        try:
            for inside in place.glob(depth):
                looked_at += 1
                if looked_at > _MOST_LOOKED_AT:
                    return
                if not any(os.path.isfile(each / MANIFEST) for each in (inside, inside.parent)):
                    yield inside
        except OSError:  # what cannot be looked into is told when it is written to
            return


def _holds_pairs(folder: Path) -> bool:
    if any(os.path.isfile(folder / name) for name in _TABLES):
        return True
    targets, sources = _PARTNERS
    names = {entry.lower() for entry in _listed(folder)}
    return bool(names & targets and names & sources) or (
        any(name.rpartition(".")[0].endswith("_start") for name in names)
        and any(name.rpartition(".")[0].endswith("_end") for name in names)
    )


def _holds_pictures(folder: Path) -> bool:
    return any(os.path.splitext(name)[1].lower() in _PICTURES for name in _listed(folder))


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _check_possible(output: Path, folder: bool) -> None:
    """Raise OutputError for a name that no file can have, or a place where none can be made."""
    there = existing(output)
    try:
        mode = os.stat(there).st_mode
        if there == output.absolute():
            _check_kind(output, mode, folder)
            there = there if folder else there.parent
        elif not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, "a file is there")
        for part in output.absolute().parts:
            if len(os.fsencode(part)) > _LONGEST:
                raise OSError(errno.ENAMETOOLONG, "name too long")
        _try_to_write(there)
    except OSError as error:
        raise refused(output, error) from None


def _check_kind(output: Path, mode: int, folder: bool) -> None:
    if folder and not stat.S_ISDIR(mode):
        raise OutputError(f"output {output}: it is a file; expected a folder", "name another")
    if not folder and stat.S_ISDIR(mode):
        raise OutputError(f"output {output}: it is a folder; expected a file", "name one in it")
    if not folder and not stat.S_ISREG(mode):
        raise OutputError(
            f"output {output}: it is a device or a pipe, no file; expected a file", "name another"
        )


def _try_to_write(folder: Path) -> None:
    """Make and remove an empty file: some places let nobody write, whatever their mode says."""
    probe = folder / f".customize-{os.getpid()}.probe"
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(probe)
