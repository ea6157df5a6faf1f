"""What strangers made, read within bounds: regular files alone, and JSON that cannot overrun us."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEEPEST = 32
"""How many lists and objects may stand within one another."""
LONGEST = 16 * 2**20
"""Bytes of JSON that are read at all."""

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_file(path: Path) -> str | None:
    """Name what `path` leads to where that is neither file nor folder: reading it may never end.

    None for files and folders, and for what is not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def bounded_json(text: str | bytes, *, longest: int = LONGEST) -> Any:
    """Parse JSON, whoever wrote it.

    Raises ValueError, with the reason in words for people, for what is no JSON, too long, nested
    too deeply, says a name twice, or holds text or numbers that cannot be passed on: halves of
    letters (surrogates), NaN, infinities, integers beyond 64 bits.
    """
    if len(text) > longest:
        raise ValueError(f"it is longer than {longest / 2**20:.0f} MiB")
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    for depth, value in _values(content):
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        if isinstance(value, str) and not value.isascii():
            _check_letters(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("it holds a number that is not finite")
        elif isinstance(value, int) and value.bit_length() > 63:
            raise ValueError("it holds an integer of more than 64 bits")
    return content


def _values(content: Any) -> Iterator[tuple[int, Any]]:
    """Walk through all values, names of objects among them, with their depths; never recurses."""
    waiting = [(1, content)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        if isinstance(value, dict):
            waiting += [(depth + 1, inner) for item in value.items() for inner in item]
        elif isinstance(value, list):
            waiting += [(depth + 1, inner) for inner in value]


def _check_letters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds halves of letters (lone surrogates)") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it says {twice[:80]!r} twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"it says {name}, which is no number")
