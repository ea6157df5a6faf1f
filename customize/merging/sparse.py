"""Merge by keeping a part of every change: TIES by magnitude, DARE at random."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def trim(delta: Tensor, density: float) -> Tensor:
    """Keep the share `density` of entries that are greatest in magnitude, the others become 0."""
    kept = max(1, round(density * delta.numel()))
    if kept == delta.numel():
        return delta
    least = delta.abs().flatten().kthvalue(delta.numel() - kept + 1).values
    return torch.where(delta.abs() >= least, delta, 0)


@torch.no_grad()
def ties(deltas: Iterable[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """Trim each change, elect a sign for every entry and average the entries that agree with it.

    The sign of an entry is that of the weighted sum; the average runs over the inputs whose entry
    is not 0 and has that sign, so one concept's weights are not thinned by others that leave them
    alone (Yadav et al. 2023, arXiv 2306.01708, algorithm 1, lambda 1, layer by layer). `deltas` is
    read twice.
    """
    sums = _each(deltas, weights, density)
    sign = torch.sign(sum(sums))  # type: ignore[arg-type]
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta in _each(deltas, weights, density):
        agrees = (delta.sign() == sign) & (sign != 0)
        total += torch.where(agrees, delta, 0)
        count += agrees
    return (total / count.clamp(min=1)).float()


def _each(deltas: Iterable[Tensor], weights: Sequence[float], density: float) -> Iterable[Tensor]:
    pairs = zip(deltas, weights, strict=True)
    return (weight * trim(delta, density).double() for delta, weight in pairs)


@torch.no_grad()
def drop(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep each entry with probability `density` and divide it by that, the others become 0.

    The mean over seeds is the change itself (Yu et al. 2023, arXiv 2311.03099, equation 2).
    """
    if density == 1:
        return delta
    kept = torch.rand(delta.shape, generator=generator) < density
    return torch.where(kept, delta / density, 0)
