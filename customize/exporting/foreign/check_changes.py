"""Check what a foreign file changes for itself, whatever the base: numbers, magnitudes, words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from customize.adapters.check_contents import LARGEST, Size
from customize.adapters.header import MOST_VECTORS, is_word
from customize.errors import AdapterFileError, Fault, FaultsError
from customize.exporting.changes import (
    Changes,
    Decomposed,
    Full,
    LowRankChange,
    Replaced,
    WeightChange,
    outline,
)


class ImportFaultsError(FaultsError, AdapterFileError):
    """Layers of a file that no base can take, or that do not fit the one named."""


def check_changes(path: Path, changes: Changes) -> None:
    """Raise ImportFaultsError for numbers that are not finite, wrong magnitudes and odd words."""
    faults = [
        Fault(layer, found, "take an undamaged file")
        for layer, change in changes.layers.items()
        if (found := _damage(change))
    ]
    if faults := [*faults, *_word_faults(changes)]:
        raise ImportFaultsError(f"{path} cannot be imported", faults)


def _damage(change: WeightChange) -> str | None:
    """Say why no weight can take a change."""
    match change:
        case LowRankChange(down, up):
            norms = [Size.of(factor).norm for factor in (down, up)]
            if all(norm < float("inf") for norm in norms) and norms[0] * norms[1] > LARGEST:
                return "its factors are so large that their product overflows"
        case Full(tensor) | Replaced(tensor):
            norms = [Size.of(tensor).norm]
        case Decomposed(inner, magnitude, axis):
            if found := _damage(inner):
                return found
            if len(magnitude) != (count := outline(inner).shape[axis]):
                return f"it has {len(magnitude)} magnitudes for {count} of its weight"
            norms = [Size.of(magnitude).norm]
        case _:
            assert_never(change)
    finite = all(norm < float("inf") for norm in norms)  # nan is less than nothing
    return None if finite else "it holds numbers that are not finite"


def _word_faults(changes: Changes) -> Iterator[Fault]:
    for word, rows in changes.words.items():
        counts = {len(tensor) for tensor in rows.values()}
        if not is_word(word):
            cure = "name it with --word '<my-dog>=FILE'"
            yield Fault(word[:80], "it is no word of at most 64 letters without spaces", cure)
        elif len(counts) > 1 or max(counts) > MOST_VECTORS:
            found = f"it has {' and '.join(map(str, sorted(counts)))} rows"
            cure = f"take a word of at most {MOST_VECTORS} rows, as many for each text encoder"
            yield Fault(word, found, cure)
        elif not all(Size.of(tensor).norm < float("inf") for tensor in rows.values()):
            yield Fault(word, "it holds numbers that are not finite", "take an undamaged file")
