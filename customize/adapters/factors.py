"""Write a weight change as the product of two thin matrices, and say what was lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """How far the change of a layer may be cut to low rank; all None loses nothing.

    At most `rank`; at least the share `energy` of the summed singular values; at most the relative
    `error`. See `factorize`.
    """

    rank: int | None = None
    energy: float | None = None
    error: float | None = None

    @property
    def cuts(self) -> bool:
        """Whether any limit is given."""
        return any(limit is not None for limit in (self.rank, self.energy, self.error))


@dataclass(frozen=True)
class Factors:
    """A weight change (O, I, ...) as `up` (O, r, 1, ...) times `down` (r, I, ...), both float32.

    `relative_error` is the Frobenius norm of what is missing over that of the change.
    """

    down: Tensor
    up: Tensor
    relative_error: float

    @property
    def rank(self) -> int:
        """Return r."""
        return self.down.shape[0]

    def product(self) -> Tensor:
        """Multiply back to the change's own shape (O, I, ...)."""
        flat_OI = self.up.flatten(1) @ self.down.flatten(1)
        return flat_OI.view(self.up.shape[0], *self.down.shape[1:])


@torch.no_grad()
def factorize(
    delta: Tensor,
    *,
    rank: int | None = None,
    energy: float | None = None,
    error: float | None = None,
) -> Factors:
    """Factorize a change by its singular value decomposition, the best of each rank (Eckart-Young).

    The least rank is taken that satisfies every limit given: at most `rank`; at least the share
    `energy` (0..1] of the summed singular values, as Custom Diffusion compresses (arXiv 2212.04488,
    section 4.2); at most the relative `error`. `rank` wins over the other two. Without limits the
    rank is the change's own. Singular values are split evenly between the factors. The rank is at
    least 1. Needs finite numbers.
    """
    flat_OI = delta.detach().double().flatten(1)
    left_OR, values_R, right_RI = torch.linalg.svd(flat_OI, full_matrices=False)
    kept = _rank_of(values_R, max(flat_OI.shape), rank, energy, error)
    root_R = values_R[:kept].sqrt()
    down_RI = root_R[:, None] * right_RI[:kept]
    up_OR = left_OR[:, :kept] * root_R
    missing, whole = values_R[kept:].norm(), values_R.norm()
    return Factors(
        down_RI.float().view(kept, *delta.shape[1:]).contiguous(),
        up_OR.float().view(-1, kept, *[1] * (delta.ndim - 2)).contiguous(),
        float(missing / whole) if whole > 0 else 0.0,
    )


@torch.no_grad()
def factorize_product(
    down: Tensor,
    up: Tensor,
    *,
    rank: int | None = None,
    energy: float | None = None,
    error: float | None = None,
) -> Factors:
    """Factorize the change up (O, r, ...) times down (r, I, ...) anew, as `factorize` would.

    Only the r x r core between orthonormal bases of both is decomposed, so thin factors of wide
    layers take milliseconds.
    """
    up_OR, up_core = torch.linalg.qr(up.detach().double().flatten(1))
    down_IR, down_core = torch.linalg.qr(down.detach().double().flatten(1).T)
    core = factorize(up_core @ down_core.T, rank=rank, energy=energy, error=error)
    kept = core.rank
    return Factors(
        (core.down.double() @ down_IR.T).float().view(kept, *down.shape[1:]).contiguous(),
        (up_OR @ core.up.double()).float().view(-1, kept, *up.shape[2:]).contiguous(),
        core.relative_error,
    )


def _rank_of(
    values_R: Tensor, longest: int, rank: int | None, energy: float | None, error: float | None
) -> int:
    """Choose how many singular values, largest first, to keep."""
    whole = values_R.sum()
    if whole == 0:
        return 1
    noise = values_R[0] * longest * torch.finfo(torch.float32).eps
    own = int((values_R > noise).sum())  # beyond it is nothing but rounding, whatever the limits
    wanted = own if energy is None and error is None else 1
    if energy is not None:
        reached_R = values_R.cumsum(0) >= energy * whole * (1 - 1e-12)
        wanted = max(wanted, int(reached_R.int().argmax()) + 1)
    if error is not None:
        # tails_R[k] is the norm of what is missing when k + 1 values are kept
        tails_R = (values_R.square().flip(0).cumsum(0).flip(0) - values_R.square()).clamp(min=0)
        within_R = tails_R.sqrt() <= error * values_R.norm()
        wanted = max(wanted, int(within_R.int().argmax()) + 1)
    return min(wanted, own, own if rank is None else rank)
