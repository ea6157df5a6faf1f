"""How closely low rank can follow a change where the size of a file is given."""

from __future__ import annotations

import torch
from torch import Tensor

from customize.errors import ExportError
from customize.exporting.changes import (
    Changes,
    Decomposed,
    Replaced,
    WeightChange,
    Weights,
    delta_of,
    outline,
)
from customize.exporting.formats.module_paths import split_layer

# What a layer's three entries in a safetensors header take, names included.
_HEADER_BYTES = 480


def energy_for(
    changes: Changes,
    weights: Weights,
    size_mb: float,
    dtype: torch.dtype,
    *,
    one_rank: bool = False,
) -> float:
    """Find the largest share of summed singular values whose factors fit in `size_mb`.

    With `one_rank` all layers of a model are stored at the highest rank among them.
    """
    spectra, costs = [], []
    models = [split_layer(layer)[0] for layer in changes.layers]
    for layer, change in changes.layers.items():
        delta = _flat(change, weights, layer)
        spectra.append(torch.linalg.svdvals(delta.double()))
        costs.append(sum(delta.shape) * dtype.itemsize)
    room = size_mb * 1e6 - _HEADER_BYTES * len(costs)
    shares = [values.cumsum(0) / values.sum().clamp(min=1e-300) for values in spectra]

    def size(energy: float) -> int:
        ranks = [int((share < energy * (1 - 1e-12)).sum()) + 1 for share in shares]
        if one_rank:
            highest = dict(sorted(zip(models, ranks, strict=True)))  # the last of a model stays
            ranks = [highest[model] for model in models]
        return sum(rank * cost for rank, cost in zip(ranks, costs, strict=True))

    if size(0) > room:
        least = (size(0) + _HEADER_BYTES * len(costs)) / 1e6
        raise ExportError(
            f"--size-mb {size_mb:g}: rank 1 in every layer takes {least:.2f} MB already; "
            f"expected at least that; give {least * 1.5:.1f} or more"
        )
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= room else (low, middle)
    return 1.0 if size(1.0) <= room else low


def _flat(change: WeightChange, weights: Weights, layer: str) -> Tensor:
    """Return a change as a matrix (O, the rest)."""
    needs_base = isinstance(change, Decomposed | Replaced)
    return delta_of(change, weights[layer] if needs_base else outline(change)).flatten(1)
