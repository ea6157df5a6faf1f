"""Files and folders that are written: under a temporary name first, whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from customize.errors import OutputExistsError
from customize.files.disk import naming_disk

REPLACE = "choose another output, or allow replacing it (--overwrite)"
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_TEMPORARY = re.compile(r"\.customize-([0-9a-f]{6})-(\d+)-\d+\.tmp")
_numbers = itertools.count()
_swept: set[Path] = set()


def refuse_existing(*paths: Path, overwrite: bool = False, cure: str = REPLACE) -> None:
    """Raise OutputExistsError for the first path that is there, unless it may be replaced.

    A process killed in its last moments leaves it whole, and beside it what goes with this one.
    """
    for path in paths:
        if os.path.lexists(path) and not overwrite:
            with suppress(OSError):  # of a folder that only others may write to
                remove_temporaries(path.parent)
            raise OutputExistsError(f"{path}: it is there already; expected a free name; {cure}")


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it; raises OutputError where that is impossible."""
    with naming_disk(folder, everything=True):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def replacing(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Give a temporary name that becomes `path` when all went well, and nothing otherwise.

    The file is as readable as the umask says, whatever writer made it; `flush` waits for the disk,
    so that it outlives a power cut. Raises OutputError, naming the disk, where that is full.
    """
    make_folder(path.parent)
    _sweep(path.parent)
    temporary = _temporary(path.parent)
    with naming_disk(path):
        try:
            with naming_disk(path, everything=True):
                mode = _made(temporary)
            yield temporary
            with naming_disk(path, everything=True):
                os.chmod(temporary, mode)  # some writers put a file of their own mode there
                if flush:
                    _flush(temporary)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    if flush and os.name == "posix":  # elsewhere folders cannot be opened, nor need they
        _flush(path.parent)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty temporary folder that becomes `folder`, which is free, when all went well."""
    make_folder(folder.parent)
    with naming_disk(folder), temporary_folder(folder.parent) as temporary:
        yield temporary
        open_to_readers(temporary)
        with naming_disk(folder, everything=True):
            os.replace(temporary, folder)


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Make a folder in `beside` that is gone afterwards; one of a killed process goes next time."""
    make_folder(beside)
    _sweep(beside)
    temporary = make_folder(_temporary(beside))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_to_readers(folder: Path) -> None:
    """Make every file in `folder` and below as readable as the umask says."""
    probe = _temporary(folder)
    mode = _made(probe)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.chmod(path, mode)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file whole or not at all, and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def remove(place: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes of this machine were writing in `folder`."""
    for path in folder.glob(".customize-*.tmp"):
        made = _TEMPORARY.fullmatch(path.name)
        if made and made[1] == _HOST and not _lives(int(made[2])):
            remove(path)


_PLACE = "_name_or_path"
"""Where diffusers and transformers note what a model was opened from: often a private folder."""


def forget_places(folder: Path) -> None:
    """Strike from every config in `folder` and below where the model was opened from."""
    for path in sorted(folder.rglob("*.json")):
        text = path.read_text("utf-8")
        if f'"{_PLACE}"' not in text:
            continue
        content = json.loads(text)
        if isinstance(content, dict) and content.pop(_PLACE, None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _temporary(folder: Path) -> Path:
    """Name what is being written: by machine and process, so that the dead ones' can be told."""
    return folder / f".customize-{_HOST}-{os.getpid()}-{next(_numbers)}.tmp"


def _made(path: Path) -> int:
    """Make an empty file and return the mode that the umask gave it."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove once what killed processes left in a folder that is written to."""
    if (place := folder.absolute()) not in _swept:
        _swept.add(place)
        remove_temporaries(folder)


def _lives(process: int) -> bool:
    """Tell whether a process of this machine is there; where it cannot be told, it is."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
