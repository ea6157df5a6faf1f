"""Solve, once for all layers that read the same text, for the map from what is asked to a change.

With C the rows that the inputs' own instructions put into a layer, T what the inputs' changes make
of them, and R the rows of generic instructions (Kumari et al. 2023, arXiv 2212.04488, equation 4):

    minimize  || D R^T ||^2 / rows + floor ||D||^2   subject to   D C^T = T
    D = T P,   P = (C G^-1 C^T + slack)^-1 C G^-1,   G = R^T R / rows + floor

`slack` is the ridge. Without it, two prompts that are nearly the same but were taught different
things ask for a huge change along their small difference.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

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
