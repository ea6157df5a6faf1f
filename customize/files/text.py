"""Text from outside, read within bounds: regular files, UTF-8, whole characters.

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
MOST_DIGITS = 40
BACKSLASHES = (
    "in double quotes a backslash means something else: write paths with forward slashes "
    "(C:/pairs/dog), or in single quotes"
)
_HALVES = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):  # noqa: N818 - a finding on its way to a message
    """What was found instead of readable text, its cure, and the line where it is known."""

    def __init__(self, found: str, cure: str, line: int = 0) -> None:
        """Take both parts of a message; line 0 is none."""
        super().__init__(f"{found}; {cure}")
        self.found, self.cure, self.line = found, cure, line


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a regular file (UTF-8, a byte order mark allowed) of at most `most` bytes.

    A pipe or a device is refused before it is opened: reading it might never end.
    """
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise Unreadable("a folder", "name a file")
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("a pipe or a device, no file", "name a file")
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
    """Refuse what JSON, YAML and TOML can say and nothing downstream can hold."""
    seen, waiting = set[int](), [value]
    while waiting:
        one = waiting.pop()
        match one:
            case str():
                check_text(one)
            case int() if abs(one) >= 10**MOST_DIGITS:
                raise Unreadable("a number of more than 40 digits", "write a shorter one")
            case dict() | list() if id(one) not in seen:  # an alias is one object in many places
                seen.add(id(one))
                waiting += [*one, *one.values()] if isinstance(one, dict) else one
            case _:
                pass
