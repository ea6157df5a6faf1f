"""Hold what a foreign file changes against a base: its layers, their shapes, its words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from customize.errors import Fault
from customize.exporting.changes import (
    Changes,
    Full,
    LowRankChange,
    Replaced,
    Weights,
    delta_of,
    outline,
)
from customize.exporting.foreign.check_changes import ImportFaultsError
from customize.exporting.foreign.read import model_of, text_width
from customize.families import profile_of

if TYPE_CHECKING:
    from customize.families.base import Base


_OWN_BASE = "name its own base"


def check_fit(path: Path, changes: Changes, weights: Weights, base: Base) -> None:
    """Raise ImportFaultsError for all that does not fit, with what the file seems to be."""
    faults = []
    for layer, change in changes.layers.items():
        if layer not in weights:
            faults.append(Fault(layer, f"{base.name} has no such layer", _OWN_BASE))
            continue
        shape = weights.shape(layer)
        ours, theirs = _flat(shape), _flat(tuple(outline(change).shape))
        if ours != theirs:
            found = f"it is {theirs[0]} x {theirs[1]}, in {base.name} {ours[0]} x {ours[1]}"
            faults.append(Fault(layer, found, _OWN_BASE))
        elif len(shape) < 2 and not isinstance(change, Full | Replaced):
            found = "it has factors or magnitudes for a layer of one axis"
            faults.append(Fault(layer, found, "take an undamaged file"))
    faults += _word_faults(changes, weights, base)
    if not faults:
        return
    model = model_of(text_width(changes))
    other = any(fault.cure == _OWN_BASE for fault in faults)
    kind = f" is for {model} and" if model and other else ""
    raise ImportFaultsError(f"{path}{kind} does not fit {base.name}", faults)


def for_editing(changes: Changes, weights: Weights, base: Base) -> tuple[Changes, int]:
    """Return changes made on a text-to-image model as changes of the editing model.

    The two differ in the layer that reads the source's channels beside the noise's: those get
    zeros. Also returns how many channels these are, 0 where nothing was to do.
    """
    first = f"denoiser.{(profile_of(base.family).layers.source or '').removesuffix('.weight')}"
    change = changes.layers.get(first)
    if change is None or first not in weights:
        return changes, 0
    shape, theirs = weights.shape(first), tuple(outline(change).shape)
    half = (shape[0], shape[1] // 2, *shape[2:])
    if _flat(theirs) != _flat(half) or shape[1] % 2:
        return changes, 0
    zeros = shape[1] - half[1]
    match change:
        case LowRankChange(down, up):
            down = down.view(len(down), *half[1:])
            padded = LowRankChange(torch.cat([down, torch.zeros_like(down)], dim=1), up)
        case _:
            delta = delta_of(change, weights[first][:, : half[1]])
            padded = Full(torch.cat([delta, torch.zeros_like(delta)], dim=1))
    return replace(changes, layers={**changes.layers, first: padded}), zeros


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


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
