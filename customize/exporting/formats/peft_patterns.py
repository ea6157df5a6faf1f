"""peft's `rank_pattern` and `alpha_pattern`: a layer's own number, by the end of its name.

peft tries `(.*\\.)?(PATTERN)$` as a regular expression, the first that matches counts. Files come
from strangers, whose expressions may run for ever; but what peft, diffusers and we write are names
of layers, perhaps with escaped dots and anchors. Those are looked up; all else is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from customize.errors import AdapterFileError

MOST = 10_000
_NAME = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\[._-])+\$?")


class Patterns:
    """Numbers by patterns, found in time that grows with a name's length, not with their count."""

    def __init__(self, patterns: Mapping[str, float]) -> None:
        """Take patterns that `read_patterns` has checked, the first of them first."""
        self._ends: dict[str, tuple[int, float]] = {}
        self._whole: dict[str, tuple[int, float]] = {}
        for order, (pattern, number) in enumerate(patterns.items()):
            place = self._whole if pattern.startswith("^") else self._ends
            name = pattern.removeprefix("^").removesuffix("$").replace("\\", "")
            place.setdefault(name, (order, number))

    def of(self, *spellings: str) -> float | None:
        """Return the number of the first pattern that fits a layer's spellings, else None."""
        fitting = [
            self._ends[end] for name in spellings for end in _ends(name) if end in self._ends
        ]
        fitting += [self._whole[name] for name in spellings if name in self._whole]
        return min(fitting)[1] if fitting else None

    def __bool__(self) -> bool:
        """Tell whether there is any pattern."""
        return bool(self._ends or self._whole)


def read_patterns(value: Any, field: str, *, whole: bool) -> Patterns:
    """Read the patterns of `field`; `whole` numbers are ranks.

    Raises AdapterFileError, naming the field, for regular expressions and for what is no number.
    """
    if value is None:
        return Patterns({})
    if not isinstance(value, Mapping) or len(value) > MOST:
        raise AdapterFileError(
            f"its {field} is no table of at most {MOST} layers; expected numbers by layers' names; "
            "download or copy it again"
        )
    for pattern, number in value.items():
        if not _NAME.fullmatch(pattern):
            raise AdapterFileError(
                f"its {field} names layers by the regular expression {pattern[:80]!r}; expected "
                "names of layers or their ends, as peft and diffusers write them: expressions from "
                "files are never run; write the layers' own names there"
            )
        number_of(number, f"{field}[{pattern[:80]!r}]", whole=whole)
    return Patterns(value)


def number_of(value: Any, field: str, *, whole: bool) -> float:
    """Return a rank (`whole`, at least 1) or an alpha; raises AdapterFileError for others."""
    kinds = int if whole else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and abs(number) < 1e6 and (number >= 1 or not whole):
            return value
    expected = "a whole number of at least 1" if whole else "a number"
    raise AdapterFileError(
        f"its {field} is {str(value)[:80]!r}; expected {expected}; download or copy it again"
    )


def _ends(name: str) -> Iterator[str]:
    """Yield a dotted name and what is left of it after each dot, the longest first."""
    while name:
        yield name
        name = name.partition(".")[2]
