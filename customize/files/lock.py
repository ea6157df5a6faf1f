"""A folder that one process at a time may write to; the lock tells who has it and since when.

The system itself lets go of the lock of a process that died: a dead lock is simply taken over.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from customize.errors import OutputError
from customize.files.disk import naming_disk
from customize.files.manifest import NAME as MANIFEST
from customize.files.write import make_folder, remove_temporaries

NAME = ".customize.lock"
_LONGEST = 200


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Make `folder` where it is missing, and keep others out of it while inside.

    What killed processes were writing there is removed. Where the work inside fails and nothing is
    there but what it made itself, no empty folder is left. Raises OutputError for a folder in use.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    try:
        with _locked(folder):
            remove_temporaries(folder)
            yield
    except BaseException:
        _remove_empty(folder, made)
        raise


def holder(folder: Path) -> int | None:
    """Return the id of the process that holds `folder` now, None where none does or can be told."""
    try:
        import fcntl

        with (folder / NAME).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(json.loads(file.read(4096))["process"])
    except (ImportError, OSError, ValueError, KeyError, TypeError):
        pass
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / NAME
    handle = _take(path)
    try:
        with naming_disk(path, everything=True):
            os.truncate(handle, 0)
            os.write(handle, json.dumps(_who()).encode())
        yield
    finally:
        if os.name == "posix":  # elsewhere an open file cannot be removed
            path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: Path) -> int:
    """Open and lock the file; raises OutputError with what its holder wrote into it."""
    while True:
        with naming_disk(path, everything=True):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(handle):
            told = _told(path)
            os.close(handle)
            raise OutputError(
                f"{path.parent}: it is in use{told}; expected a folder that nothing else writes "
                "to; wait for that to end, or choose another output"
            )
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)  # its holder finished, and removed it, between these two calls


def _lock(handle: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _who() -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        user = "somebody"
    command = shlex.join(["customize", *sys.argv[1:]])[:_LONGEST]
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "user": user,
        "host": platform.node(),
        "process": os.getpid(),
        "since": since,
        "command": command,
    }


def _told(path: Path) -> str:
    """Say who has the lock, as far as the file tells."""
    try:
        who = json.loads(path.read_bytes()[:4096])
        return (
            f" by {who['user']}, process {who['process']} on {who['host']}, since {who['since']} "
            f"(`{who['command']}`)"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return " by another process"


def _remove_empty(folder: Path, made: list[Path]) -> None:
    """Remove the folders that were `made`, innermost first, where nothing was put into them."""
    if folder not in made:
        return
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if files != [folder / MANIFEST] and files:
        return
    for path in files:
        path.unlink()
    inside = sorted((p for p in folder.rglob("*")), reverse=True)
    for place in [*inside, *made]:
        try:
            place.rmdir()
        except OSError:
            return
