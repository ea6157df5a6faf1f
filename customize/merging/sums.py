"""Sum the changes of a layer: as full weights, or exactly in low rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor


@torch.no_grad()
def linear(deltas: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of changes of one shape, float32.

    The sum runs in float64, so that it does not depend on the order beyond the last rounding.
    """
    total: Tensor | None = None
    for delta, weight in zip(deltas, weights, strict=True):
        total = torch.zeros(delta.shape, dtype=torch.float64) if total is None else total
        total.add_(delta.double(), alpha=weight)
    assert total is not None, "a layer that nothing changes"
    return total.float()


@torch.no_grad()
def concat(
    downs: Sequence[Tensor], ups: Sequence[Tensor], weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Stack factors (r_i, I, ...) and (O, r_i, ...) so that their product is the weighted sum.

    Returns down (sum of r_i, I, ...) and up (O, sum of r_i, ...), with the weights in `up`.
    """
    scaled = [weight * up.float() for up, weight in zip(ups, weights, strict=True)]
    return torch.cat([down.float() for down in downs]), torch.cat(scaled, dim=1)


@torch.no_grad()
def ties(deltas: Iterable[Tensor], weights: Sequence[float], *, density: float) -> Tensor:
    """Trim each change, elect a sign for every entry and average the entries that agree with it.

    The sign is that of the weighted sum; the average runs over the inputs whose entry is not 0 and
    has that sign, so what one input alone changed is not thinned by the others (Yadav et al. 2023,
    arXiv 2306.01708, algorithm 1 with lambda 1, layer by layer). `deltas` is read twice. Float32.
    """
    sign = torch.sign(linear(_trimmed(deltas, density), weights))
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(_trimmed(deltas, density), weights, strict=True):
        agrees = (weight * delta).sign() == sign
        total += torch.where(agrees, weight * delta, 0)
        count += agrees
    return total / count.clamp(min=1)


@torch.no_grad()
def dare(
    deltas: Iterable[Tensor],
    weights: Sequence[float],
    *,
    density: float,
    seeds: Sequence[int],
    then: Literal["linear", "ties"] = "linear",
) -> Tensor:
    """Drop entries of each change at random, scale up the rest, then add or elect and average.

    One seed for each input decides what it drops (Yu et al. 2023, arXiv 2311.03099, section 3).
    `ties` after it trims no more: the dropping took its place. Float32.
    """
    dropped = _Dropped(deltas, density, seeds)
    return linear(dropped, weights) if then == "linear" else ties(dropped, weights, density=1)


@torch.no_grad()
def trim(delta: Tensor, density: float) -> Tensor:
    """Keep the share `density` (0..1] of entries that are greatest, the others become 0."""
    kept = max(1, round(density * delta.numel()))
    if kept == delta.numel():
        return delta
    least = delta.abs().flatten().kthvalue(delta.numel() - kept + 1).values
    return torch.where(delta.abs() >= least, delta, 0)


@torch.no_grad()
def drop(delta: Tensor, density: float, seed: int) -> Tensor:
    """Keep each entry with probability `density` (0..1] and divide it by that; others become 0.

    The mean over all seeds is the change itself (arXiv 2311.03099, equation 2).
    """
    kept = torch.rand(delta.shape, generator=torch.Generator().manual_seed(seed)) < density
    return torch.where(kept, delta / density, 0)


class _Dropped:
    """Changes after dropping, made again each time they are read."""

    def __init__(self, deltas: Iterable[Tensor], density: float, seeds: Sequence[int]) -> None:
        self._deltas, self._density, self._seeds = deltas, density, seeds

    def __iter__(self) -> Iterator[Tensor]:
        pairs = zip(self._deltas, self._seeds, strict=True)
        return (drop(delta, self._density, seed) for delta, seed in pairs)


def _trimmed(deltas: Iterable[Tensor], density: float) -> Iterator[Tensor]:
    return (trim(delta, density) for delta in deltas)
