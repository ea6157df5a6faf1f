"""Text from outside, read within bounds: regular files, UTF-8, whole characters, no deep nests.

What is wrong is raised as `Unreadable` with its cure; the caller knows the place.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 200_000
"""Of a text that a person writes: a recipe, a data set's description, an instruction."""
MOST_TABLE_BYTES = 2**28
"""Of a table: half a million pairs with captions."""
MOST_BITS = 63
"""Of an integer, its sign aside."""
DEEPEST = 32
"""How many lists and objects may stand within one another."""
BACKSLASHES = (
    "in double quotes a backslash means something else: write paths with forward slashes "
    "(C:/pairs/dog), or in single quotes"
)
NOTHING = "no such file or folder"
_HALVES = re.compile("[\ud800-\udfff]")
_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Unreadable(ValueError):  # noqa: N818 - a finding on its way to a message
    """What was found instead of readable text, its cure, and the line where it is known."""

    def __init__(self, found: str, cure: str, line: int = 0) -> None:
        """Take both parts of a message; line 0 is none."""
        super().__init__(f"{found}; {cure}")
        self.found, self.cure, self.line = found, cure, line


def finding(error: Exception) -> str:
    """Say what was found, without a cure, for messages that have one of their own."""
    return error.found if isinstance(error, Unreadable) else str(error)


def special_file(path: Path) -> str | None:
    """Name what `path` leads to where that is neither file nor folder: reading it may never end.

    None for files and folders, and for what is not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return next((kind for is_kind, kind in _SPECIAL if is_kind(mode)), None)


def found_at(path: Path) -> str:
    """Say what lies at `path` where something else was expected; reads nothing."""
    if kind := special_file(path):
        return f"{kind}, which may never end"
    if os.path.isdir(path):
        return "a folder"
    if os.path.isfile(path):
        return "a file"
    return "a link to nothing, or to itself" if os.path.islink(path) else NOTHING


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a regular file (UTF-8, a byte order mark allowed) of at most `most` bytes.

    A pipe or a device is refused before it is opened: reading it might never end.
    """
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise Unreadable("a folder", "name a file")
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(found_at(path), "name a file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("no such file", "check the path") from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})", "check the file") from None
    except ValueError:  # a zero byte in its name
        raise Unreadable("a name that no file can have", "mend the path") from None
    if len(content) > most:
        more = f"more than {most / 1e6:g} MB of text"
        raise Unreadable(more, "that is more than any such file needs: name another, or split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 text (byte {error.start})", "save it as UTF-8") from None


def check_text(text: str) -> None:
    """Refuse half of a character (a lone surrogate), which nothing can show or write."""
    if half := _HALVES.search(text):
        cure = "write the character itself"
        raise Unreadable(f"half of a character ({ascii(half[0])[1:-1]})", cure)


def check_path(path: str) -> None:
    """Refuse a path with a line end, a tab or the like, which was a backslash in double quotes."""
    if odd := next(
        (c for c in path if ord(c) < 32 or ord(c) in (0x7F, 0x85, 0x2028, 0x2029)), None
    ):
        raise Unreadable(f"a path with {odd!a} in it: {ascii(path)[:80]}", BACKSLASHES)


def check_values(value: Any) -> None:
    """Refuse what JSON, YAML and TOML can say and nothing downstream can hold; never recurses."""
    seen, waiting = set[int](), [(1, value)]
    while waiting:
        depth, one = waiting.pop()
        if depth > DEEPEST:
            raise Unreadable(f"values nested more than {DEEPEST} deep", "write it flatter")
        match one:
            case str():
                check_text(one)
            case int() if one.bit_length() > MOST_BITS:
                raise Unreadable("an integer of more than 64 bits", "write a shorter one")
            case dict() | list() if id(one) not in seen:  # an alias is one object in many places
                seen.add(id(one))
                inside = [*one, *one.values()] if isinstance(one, dict) else one
                waiting += [(depth + 1, each) for each in inside]
            case _:
                pass
