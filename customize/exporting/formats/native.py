"""Our own adapter files as changes, and back."""

from __future__ import annotations

from typing import assert_never

from torch import Tensor

from customize.adapters import deltas
from customize.adapters.file import AdapterFile
from customize.exporting.changes import (
    Changes,
    Decomposed,
    Full,
    LowRankChange,
    Replaced,
    WeightChange,
    Weights,
    delta_of,
)

_WORDS = "words."


def to_native(changes: Changes, weights: Weights) -> dict[str, Tensor]:
    """Name the tensors of an adapter file, in the shapes of the base's `weights`.

    The weights themselves are read for replaced ones and for DoRA over inputs alone.
    """
    tensors: dict[str, Tensor] = {}
    for layer, change in changes.layers.items():
        shape = weights.shape(layer)
        match change:
            case LowRankChange(down, up):
                tensors |= _pair(layer, down, up, shape)
            case Decomposed(LowRankChange(down, up), magnitude, 0):
                tensors |= _pair(layer, down, up, shape) | {f"{layer}.magnitude": magnitude}
            case Full(delta):
                tensors[f"{layer}.delta"] = delta.reshape(shape)
            case Replaced() | Decomposed():
                tensors[f"{layer}.delta"] = delta_of(change, weights[layer])
            case _:
                assert_never(change)
    for word, rows in changes.words.items():
        tensors |= {f"{_WORDS}{encoder}.{word}": tensor for encoder, tensor in rows.items()}
    return tensors


def from_native(adapter: AdapterFile, weights: Weights) -> Changes:
    """Read an adapter file; a weight is needed only by a DoRA layer that has a delta as well."""
    layers = {layer: _change(adapter, layer, weights) for layer in deltas.layers(adapter)}
    words: dict[str, dict[str, Tensor]] = {}
    for encoder in sorted(deltas.word_readers(adapter)):
        for word, rows in deltas.words(adapter, encoder).items():
            words.setdefault(word, {})[encoder] = rows.float()
    return Changes(layers, words)


def _change(adapter: AdapterFile, layer: str, weights: Weights) -> WeightChange:
    found = {
        kind: adapter.tensors[f"{layer}.{kind}"].float()
        for kind in ("delta", "lora_A", "lora_B", "magnitude")
        if f"{layer}.{kind}" in adapter.tensors
    }
    match found:
        case {"delta": _, "lora_A": _, "magnitude": _}:
            return Full(deltas.weight_delta(adapter, layer, weights[layer]))
        case {"delta": delta, "lora_A": _}:
            return Full(deltas.weight_delta(adapter, layer, delta))
        case {"delta": delta}:
            return Full(delta)
    pair = LowRankChange(found["lora_A"], adapter.header.scale * found["lora_B"])
    return Decomposed(pair, found["magnitude"].flatten()) if "magnitude" in found else pair


def _pair(layer: str, down: Tensor, up: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Shape factors as peft does: a convolution's kernel is in `down`."""
    (out, *rest), rank = shape, down.shape[0]
    return {
        f"{layer}.lora_A": down.reshape(rank, *rest),
        f"{layer}.lora_B": up.reshape(out, rank, *[1] * len(shape[2:])),
    }
