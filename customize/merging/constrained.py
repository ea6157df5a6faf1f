"""Keep what each input does to its own instructions, and change the rest as little as can be.

Custom Diffusion's merge (Kumari et al. 2023, arXiv 2212.04488, section 3.3 and appendix), written
in changes D (N, K) instead of weights: D = T P, where T is what the inputs' changes make of their
own instructions' rows and P, from `solving.Solver`, depends on the text alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Rows:
    """The rows (n, K) that one input's instructions put into a layer.

    `merged` as the merged model will read them, `alone` as the input alone did: unequal only where
    text encoders were taught.
    """

    merged: Tensor
    alone: Tensor

    @property
    def same(self) -> bool:
        """Whether the merged model reads what the input alone did."""
        return self.merged is self.alone

    @torch.no_grad()
    def compact(self) -> Rows:
        """Return the fewest rows that ask for the same, float64, those that hold most of it last.

        Rotating rows among themselves changes neither constraints nor ridge, and directions below
        1e-6 of the greatest are the encoder's rounding. Divided by the root of n, so that every
        input counts alike.
        """
        both = self.merged if self.same else torch.cat([self.merged, self.alone], 1)
        both = both.double()
        square = both @ both.T if len(both) <= both.shape[1] else both.T @ both
        squares_n, rotation = torch.linalg.eigh(square)
        kept = squares_n > _NEGLIGIBLE**2 * squares_n[-1]
        if len(both) <= both.shape[1]:
            rows = rotation[:, kept].T @ both
        else:
            rows = squares_n[kept].sqrt()[:, None] * rotation[:, kept].T
        rows = rows / len(both) ** 0.5
        if self.same:
            return Rows(rows, rows)
        merged, alone = rows.split(self.merged.shape[1], dim=1)
        return Rows(merged.contiguous(), alone.contiguous())

    def float(self) -> Rows:
        """Return the same rows in float32, in which layers are merged."""
        merged = self.merged.float()
        return Rows(merged, merged if self.same else self.alone.float())


@torch.no_grad()
def wanted(delta: Tensor, weight: float, rows: Rows, base: Tensor | None = None) -> Tensor:
    """Return what one input asks of the merged change, (N, n) float32: its own answers to its rows.

    An input that leaves the layer alone has a `delta` of zeros: its rows ask for no change. `base`,
    the layer's untouched weight, is needed where a text encoder was taught: then the merged change
    must also undo what the merged text encoder does to the rows.
    """
    asked = (delta.float() @ rows.alone.T.float()).mul_(weight)
    if rows.same:
        return asked
    assert base is not None, "rows moved by the text encoder need the layer's weight"
    return asked + base.float() @ (rows.alone - rows.merged).T.float()


@torch.no_grad()
def constrained(wanted_Nn: Iterable[Tensor], maps_nK: Iterable[Tensor]) -> Tensor:
    """Return the merged change (N, K) of one layer, float32: T P, summed over the inputs.

    `wanted_Nn` comes from `wanted`, `maps_nK` from `solving.Solver`, one for each input.
    """
    total: Tensor | None = None
    for asked, map_nK in zip(wanted_Nn, maps_nK, strict=True):
        map_nK = map_nK.float()
        total = asked @ map_nK if total is None else total.addmm_(asked, map_nK)
    assert total is not None, "no input"
    return total
