"""Keep what each input does to its own inputs, and change everything else as little as can be.

Custom Diffusion's merge of concepts (Kumari et al. 2023, arXiv 2212.04488, section 3.3, equation
4), written in changes D of a weight (N, K) instead of weights. For rows c that must come out as
they do in input i, and generic rows R that should come out as in the base:

    minimize  || D R^T ||^2 + floor ||D||^2   subject to   D c^T = t  for every c

    D = sum_i T_i P_i,   P = (C G^-1 C^T + slack I)^-1 C G^-1,   G = R^T R / rows + floor I

T_i = D_i C_i^T is small, and P is the same for all layers that read the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-3


@dataclass(frozen=True)
class Rows:
    """What one input's instructions put into a layer, (n, K) float64.

    `merged` as the merged model reads them, `alone` as the input alone did: unequal only where the
    text encoder itself was taught.
    """

    merged: Tensor
    alone: Tensor


def solve(asked: Sequence[Tensor], generic_RK: Tensor, *, ridge: float) -> list[Tensor]:
    """Return P_i (n_i, K), float64, for the rows (n_i, K) that each input asks to be kept."""
    raise NotImplementedError


def constrained(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    rows: Sequence[Rows],
    maps: Sequence[Tensor],
    base: Tensor | None = None,
) -> Tensor:
    """Return the change of one layer, float32, from the changes of the inputs and `solve`'s maps.

    `base` (the layer's untouched weight) is needed where some `merged` and `alone` differ.
    """
    raise NotImplementedError
