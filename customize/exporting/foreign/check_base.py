"""Hold what a foreign file changes against a base: shapes, numbers and words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from customize.errors import AdapterFileError, Fault, FaultsError
from customize.exporting.changes import (
    Change,
    Changes,
    Decomposed,
    Full,
    LowRank,
    Replaced,
    Weights,
    outline,
)
from customize.exporting.foreign.read import model_of, text_width
from customize.families import profile_of

if TYPE_CHECKING:
    from customize.families.base import Base


_OWN_BASE = "name its own base"


class ImportFaultsError(FaultsError, AdapterFileError):
    """Layers of a file that do not fit the base."""


def check_fit(path: Path, changes: Changes, weights: Weights, base: Base) -> None:
    """Raise ImportFaultsError for all that does not fit, with what the file seems to be."""
    faults = []
    for layer, change in changes.layers.items():
        if layer not in weights:
            faults.append(Fault(layer, f"{base.name} has no such layer", _OWN_BASE))
            continue
        ours, theirs = _flat(weights.shape(layer)), _flat(tuple(outline(change).shape))
        if ours != theirs:
            found = f"it is {theirs[0]} x {theirs[1]}, in {base.name} {ours[0]} x {ours[1]}"
            faults.append(Fault(layer, found, _OWN_BASE))
        elif found := _damage(change, weights.shape(layer)):
            faults.append(Fault(layer, found, "take an undamaged file"))
    faults += _word_faults(changes, weights, base)
    if not faults:
        return
    model = model_of(text_width(changes))
    other = any(fault.cure == _OWN_BASE for fault in faults)
    kind = f" is for {model} and" if model and other else ""
    shown, rest = faults[:5], len(faults) - 5
    if rest > 0:
        shown.append(Fault("...", f"{rest} more do not fit", "name the right base"))
    title = f"{path}{kind} does not fit {base.name}"
    raise ImportFaultsError(title, shown)


def _damage(change: Change, shape: tuple[int, ...]) -> str | None:
    """Say what no weight of this shape (O, I, ...) can take."""
    if len(shape) < 2 and not isinstance(change, Full | Replaced):
        return "it has factors or magnitudes for a layer of one axis"
    match change:
        case LowRank(down, up):
            tensors = (down, up)
        case Full(tensor) | Replaced(tensor):
            tensors = (tensor,)
        case Decomposed(inner, magnitude, axis):
            if len(magnitude) != shape[axis]:
                return f"it has {len(magnitude)} magnitudes for {shape[axis]} of its weight"
            if found := _damage(inner, shape):
                return found
            tensors = (magnitude,)
        case _:
            assert_never(change)
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
    return None if finite else "it holds numbers that are not finite"


def _word_faults(changes: Changes, weights: Weights, base: Base) -> Iterator[Fault]:
    """Compare every word's rows with the token embeddings of the base's text encoders."""
    cure, profile = "take an embedding for this base", profile_of(base.family)
    for word, rows in changes.words.items():
        for encoder in sorted({*profile.text_encoders, *rows}):
            table = f"{encoder}.{profile.token_table}"
            if (encoder in rows) != (table in weights):
                lacks = base.name if encoder in rows else "it"
                has = "it" if encoder in rows else base.name
                yield Fault(word, f"{has} has a {encoder} and {lacks} has none", cure)
            elif encoder in rows:
                theirs, ours = rows[encoder].shape[1], weights.shape(table)[1]
                if theirs != ours:
                    yield Fault(word, f"its rows are {theirs} wide, in {base.name} {ours}", cure)
                elif not rows[encoder].isfinite().all():
                    yield Fault(word, "it holds numbers that are not finite", cure)


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
