"""The closed form: keep what each input does to its own instructions, change the rest least.

Custom Diffusion's merge (Kumari et al. 2023, arXiv 2212.04488, section 3.3, equation 4), written in
changes D (N, K) instead of weights. With C the rows that the inputs' own instructions put into a
layer, T what the inputs' changes make of them, and R the rows of generic instructions:

    minimize  || D R^T ||^2 / rows + floor ||D||^2   subject to   D C^T = T
    D = T P,   P = (C G^-1 C^T + slack)^-1 C G^-1,   G = R^T R / rows + floor

P depends on the text alone: `Solver` makes it once for all layers that read the same. `slack` is
the ridge. Without it, two prompts that are nearly the same but were taught different things ask for
a huge change along their small difference.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
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

    `wanted_Nn` comes from `wanted`, `maps_nK` from `Solver.maps`, one for each input.
    """
    total: Tensor | None = None
    for asked, map_nK in zip(wanted_Nn, maps_nK, strict=True):
        map_nK = map_nK.float()
        total = asked @ map_nK if total is None else total.addmm_(asked, map_nK)
    assert total is not None, "no input"
    return total


FLOOR = 1e-2
"""Share of the generic rows' mean square that holds all directions, seen in them or not."""
AMPLIFIED = 1.5
"""Most that a merge may enlarge any part of an input's change, where the ridge is chosen here."""
_RIDGES = tuple(10 ** (step / 2) for step in range(-12, 1))
_ROUNDS, _PROBES = 8, 2


class Solver:
    """What all ridges share: rows in coordinates where G is the identity and C^T C diagonal.

    `floor` is relative to the mean of R^T R / rows' diagonal.
    """

    @torch.no_grad()
    def __init__(
        self, asked: Sequence[Tensor], generic_RK: Tensor, *, floor: float = FLOOR
    ) -> None:
        """Whiten and turn every input's rows (n_i, K) by the generic ones (R, K), in float64."""
        generic_RK = generic_RK.double()
        gram_KK = generic_RK.T @ generic_RK / len(generic_RK)
        width = len(gram_KK)
        gram_KK += floor * gram_KK.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        root_KK = torch.linalg.cholesky(gram_KK)
        white = [
            torch.linalg.solve_triangular(root_KK, rows.double().T, upper=False) for rows in asked
        ]
        squares_K, basis_KK = torch.linalg.eigh(sum(w_Kn @ w_Kn.T for w_Kn in white))
        self._turned = [w_Kn.T @ basis_KK for w_Kn in white]
        self._squares_K = squares_K.clamp(min=0)
        self._mean = float(squares_K.sum() / sum(len(rows) for rows in asked))
        self._back_KK = torch.linalg.solve_triangular(root_KK.T, basis_KK, upper=True)

    @torch.no_grad()
    def maps(self, ridge: float | None = None) -> list[Tensor]:
        """Return each input's columns P_i of P, as (n_i, K) float64.

        `ridge` is relative: slack is that many times the mean of C G^-1 C^T's diagonal. None takes
        the least of 1e-6 to 1 with which no input's change is amplified more than `AMPLIFIED`
        times: rows of different directions are kept exactly, those that nearly agree are averaged.
        """
        if ridge is None:
            ridge = _chosen(self._turned, self._squares_K, self._mean)
        inverse_KK = (self._back_KK / (self._squares_K + ridge * self._mean)).T
        return [rows @ inverse_KK for rows in self._turned]


def _chosen(turned: Sequence[Tensor], squares_K: Tensor, mean: float) -> float:
    """Return the least ridge that keeps every input's amplification within bounds, at most 1."""
    singles = [rows.float() for rows in turned]

    def too_much(ridge: float) -> float:
        inverse_K = 1 / (squares_K + ridge * mean)
        return max(_amplification(rows, inverse_K.float()) for rows in singles)

    place = bisect_left(_RIDGES, -AMPLIFIED, key=lambda ridge: -too_much(ridge))
    return _RIDGES[min(place, len(_RIDGES) - 1)]


def _amplification(rows_nK: Tensor, inverse_K: Tensor) -> float:
    """Return the spectral norm of C_i^T P_i, which the merge multiplies an input's change by.

    By power iteration: 1 for an input alone, 1 / sin of the angle between two rows of two inputs.
    """
    generator = torch.Generator().manual_seed(0)
    probe_KP = torch.randn(len(inverse_K), _PROBES, generator=generator)
    norm = 0.0
    for _ in range(_ROUNDS):
        probe_KP = probe_KP / probe_KP.norm(dim=0)
        answer_KP = rows_nK.T @ (rows_nK @ (inverse_K[:, None] * probe_KP))
        norm = float(answer_KP.norm(dim=0).max())
        probe_KP = inverse_K[:, None] * (rows_nK.T @ (rows_nK @ answer_KP))
    return norm
