"""Sum the changes of a layer: as full weights, or exactly in low rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
