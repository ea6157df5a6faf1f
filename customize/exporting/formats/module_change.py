"""The change that the tensors of one module make together.

LyCORIS' products (LoHa, LoKr; arXiv 2309.14859) are rewritten as low-rank pairs without loss where
that is smaller than the change itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from customize.exporting.changes import Decomposed, Full, LowRankChange, Replaced, WeightChange
from customize.exporting.formats.tensor_roles import Role


def change_of(parts: Mapping[Role, Tensor], scale: float | None = None) -> WeightChange:
    """Put the tensors of one module together; convolutions may come out flattened to (O, rest).

    `scale` replaces alpha / rank for files that keep it elsewhere. Raises KeyError where a tensor
    of the module is missing, ValueError and RuntimeError where tensors do not fit one another or
    alpha is there twice and differs.
    """
    _check_alpha(parts, scale)
    match parts:
        case {"delta": delta}:
            change: LowRankChange | Full = Full(delta.float())
        case {"weight": weight}:
            return Replaced(weight.float())
        case {"hada_1a": _} | {"hada_1b": _}:
            change = _hadamard(parts, scale)
        case {"w1": _} | {"w1_a": _} | {"w2": _} | {"w2_a": _}:
            change = _kronecker(parts, scale)
        case _:
            change = _low_rank(parts, scale)
    if "magnitude" in parts:
        return Decomposed(change, parts["magnitude"].float().flatten())
    if "dora" not in parts:
        return change
    norms = parts["dora"].float()
    return Decomposed(change, norms.flatten(), 1 if norms.ndim > 1 and len(norms) == 1 else 0)


def rank_of(parts: Mapping[Role, Tensor]) -> int | None:
    """Return the rank that alpha is divided by, None where no factor has one."""
    roles: tuple[Role, ...] = ("down", "hada_1b", "w2_b", "w1_b")
    return next((len(parts[role]) for role in roles if role in parts), None)


def check_parts(parts: Mapping[Role, Tensor]) -> None:
    """Raise ValueError for tensors that mean nothing in their role, or nothing together."""
    if not any(parts.keys() <= group for group in _GROUPS):
        raise ValueError(f"kinds that do not go together: {', '.join(sorted(parts))}")
    for role, tensor in parts.items():
        if role == "alpha":
            if tensor.numel() != 1:
                raise ValueError(f"alpha has {tensor.numel()} numbers")
        elif not tensor.numel() or tensor.ndim < (1 if role in _ANY_AXES else 2):
            raise ValueError(f"{role} has the shape {list(tensor.shape)}")


_ANY_AXES: frozenset[Role] = frozenset({"delta", "weight", "magnitude", "dora"})
_HADA: tuple[Role, ...] = ("hada_1a", "hada_1b", "hada_2a", "hada_2b", "hada_t1", "hada_t2")
_LOKR: tuple[tuple[Role, ...], ...] = (
    ("w1", "w2"),
    ("w1", "w2_a", "w2_b", "t2"),
    ("w1_a", "w1_b", "w2"),
    ("w1_a", "w1_b", "w2_a", "w2_b", "t2"),
)
_CHANGES: tuple[tuple[Role, ...], ...] = (("delta",), ("down", "up", "mid"), _HADA, *_LOKR)
_NORMS: tuple[Role, ...] = ("magnitude", "dora")
_GROUPS: tuple[frozenset[Role], ...] = (
    frozenset[Role](("weight", "alpha")),
    *(frozenset[Role]((*change, "alpha", norms)) for change in _CHANGES for norms in _NORMS),
)
"""What may stand together in a module; what must is seen when it is missing."""


def _check_alpha(parts: Mapping[Role, Tensor], scale: float | None) -> None:
    """Raise ValueError where a layer has an alpha of its own that is not the configuration's."""
    rank = rank_of(parts)
    if scale is None or rank is None or "alpha" not in parts:
        return
    own = float(parts["alpha"]) / rank
    if not math.isclose(own, scale, rel_tol=1e-3):
        raise ValueError(f"alpha / rank is {own:g} beside them, and in the configuration {scale:g}")


def _low_rank(parts: Mapping[Role, Tensor], scale: float | None) -> LowRankChange | Full:
    down, up = parts["down"].float(), parts["up"].float()
    factor = _scale(parts, down.shape[0], scale)
    if "mid" not in parts:
        _check_ranks(up, down)
        return LowRankChange(down, factor * up)
    mid_RR = parts["mid"].float()
    delta = torch.einsum("rs...,or,si->oi...", mid_RR, up.flatten(1), down.flatten(1))
    return Full(factor * delta)


def _hadamard(parts: Mapping[Role, Tensor], scale: float | None) -> LowRankChange | Full:
    """Multiply two low-rank products elementwise: (A B) * (C D).

    Entry (o, i) is the sum over r, s of A[o,r] C[o,s] B[r,i] D[s,i]: itself a product, of rank r^2.
    """
    a_OR, b_RI = parts["hada_1a"].float(), parts["hada_1b"].float()
    c_OR, d_RI = parts["hada_2a"].float(), parts["hada_2b"].float()
    scale = _scale(parts, b_RI.shape[0], scale)
    if "hada_t1" not in parts:
        _check_ranks(a_OR, b_RI)
        _check_ranks(c_OR, d_RI)
    if "hada_t1" in parts:
        first = _tucker(parts["hada_t1"], a_OR, b_RI)
        return Full(scale * first * _tucker(parts["hada_t2"], c_OR, d_RI))
    up = torch.einsum("or,os->ors", a_OR, c_OR).flatten(1)
    down = torch.einsum("ri,si->rsi", b_RI, d_RI).flatten(0, 1)
    return _smaller(down, scale * up)


def _kronecker(parts: Mapping[Role, Tensor], scale: float | None) -> LowRankChange | Full:
    """Multiply by blocks, W1 (x) W2: (A B) (x) (C D) is (A (x) C) (B (x) D).

    LyCORIS leaves alpha out where both are whole; peft, which gives `scale`, does not.
    """
    rank = rank_of(parts)
    if scale is None:
        scale = _scale(parts, rank) if rank else 1.0
    if "t2" in parts:
        w2 = _tucker(parts["t2"], parts["w2_a"].float(), parts["w2_b"].float())
        a_OR, b_RI = _pair(parts, "w1", "w1_a", "w1_b")
        w1 = a_OR @ b_RI
        return Full(scale * torch.kron(w1.view(*w1.shape, *[1] * (w2.ndim - 2)), w2))
    a_OR, b_RI = _pair(parts, "w1", "w1_a", "w1_b")
    c_OR, d_RI = _pair(parts, "w2", "w2_a", "w2_b")
    return _smaller(torch.kron(b_RI, d_RI), scale * torch.kron(a_OR, c_OR))


def _pair(parts: Mapping[Role, Tensor], whole: Role, a: Role, b: Role) -> tuple[Tensor, Tensor]:
    """Return a factor as a product of two, the second the identity where it is stored whole."""
    if whole not in parts:
        _check_ranks(parts[a], parts[b])
        return parts[a].float(), parts[b].float().flatten(1)
    matrix_OI = parts[whole].float().flatten(1)
    return matrix_OI, torch.eye(matrix_OI.shape[1])


def _tucker(core: Tensor, out_RO: Tensor, in_RI: Tensor) -> Tensor:
    """Rebuild a convolution (O, I, kh, kw) from its Tucker core (r, r, kh, kw)."""
    return torch.einsum("rs...,ro,si->oi...", core.float(), out_RO, in_RI).contiguous()


def _check_ranks(up: Tensor, down: Tensor) -> None:
    if up.shape[1] != down.shape[0]:
        raise ValueError(f"factors of rank {up.shape[1]} and {down.shape[0]}")


def _smaller(down: Tensor, up: Tensor) -> LowRankChange | Full:
    """Keep a product as its factors unless the whole is smaller."""
    if down.numel() + up.numel() < up.shape[0] * down.shape[1]:
        return LowRankChange(down, up)
    return Full(up @ down)


def _scale(parts: Mapping[Role, Tensor], rank: int, scale: float | None = None) -> float:
    """Return alpha / rank, 1 without alpha (arXiv 2106.09685, section 4.1), or `scale` if given."""
    if scale is not None:
        return scale
    return float(parts["alpha"]) / rank if "alpha" in parts else 1.0
