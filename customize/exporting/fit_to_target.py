"""Turn changes into what a layout holds: low rank within limits, full, or DoRA; then round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

import torch
from torch import Tensor

from customize.adapters.factors import Limits, factorize
from customize.errors import ExportError
from customize.exporting.changes import (
    Changes,
    Decomposed,
    Full,
    LowRankChange,
    Replaced,
    WeightChange,
    Weights,
    delta_of,
    outline,
)
from customize.exporting.formats.module_paths import split_layer
from customize.exporting.size_limit import energy_for
from customize.exporting.targets import Holds

if TYPE_CHECKING:
    from customize.exporting.targets import ExportOptions


@dataclass(frozen=True)
class Fitted:
    """Changes as a layout holds them, and each layer's relative error against the exact ones."""

    changes: Changes
    errors: Mapping[str, float]


@torch.no_grad()
def fit(
    changes: Changes,
    holds: Holds,
    weights: Weights,
    options: ExportOptions,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Fitted:
    """Fit every layer; `progress` may show how far it is, layer by layer.

    Base weights are read for DoRA alone. Raises ExportError where a layer cannot be held or
    `size_mb` is too small for rank 1.
    """
    dtype = getattr(torch, options.dtype)
    limits = Limits(options.rank, options.energy, options.error)
    if options.size_mb is not None:
        energy = energy_for(changes, weights, options.size_mb, dtype, one_rank=holds.one_rank)
        limits = replace(limits, energy=energy)
    layers: dict[str, WeightChange] = {}
    errors = {}
    plain = _not_all_dora(changes)
    for layer in progress(changes.layers):
        exact = changes.layers[layer]
        base = weights[layer] if isinstance(exact, Decomposed | Replaced) else None
        own = replace(holds, dora=False) if split_layer(layer)[0] in plain else holds
        fitted = _fit_layer(layer, exact, base, own, limits)
        layers[layer] = _rounded(fitted, dtype)
        errors[layer] = relative_error(layers[layer], exact, base)
    return Fitted(replace(changes, layers=layers), errors)


def _not_all_dora(changes: Changes) -> set[str]:
    """Name the models where not every layer is DoRA: layouts tell it once for a whole model."""
    return {
        split_layer(layer)[0]
        for layer, change in changes.layers.items()
        if not isinstance(change, Decomposed)
    }


def relative_error(change: WeightChange, exact: WeightChange, base: Tensor | None = None) -> float:
    """Return the Frobenius norm of the difference over that of `exact`, 0 where both are zero.

    `base` gives the weight that DoRA and replaced weights need.
    """
    if isinstance(change, LowRankChange) and isinstance(exact, LowRankChange):
        missing, whole = _pair_norms(change, exact)
    else:
        like = base if base is not None else outline(exact)
        truth = delta_of(exact, like)
        missing, whole = float((delta_of(change, like) - truth).norm()), float(truth.norm())
    return missing / whole if whole else missing


def _pair_norms(change: LowRankChange, exact: LowRankChange) -> tuple[float, float]:
    """Return the norms of the difference of two products and of the second, forming neither.

    With U D of stacked factors, ||U D||^2 is the sum of (U^T U) * (D D^T), elementwise.
    """
    ups = [pair.up.double().flatten(1) for pair in (exact, change)]
    downs = [pair.down.double().flatten(1) for pair in (exact, change)]
    up_OR, down_RI = torch.cat([ups[0], -ups[1]], dim=1), torch.cat(downs)
    inner_RR = (up_OR.T @ up_OR) * (down_RI @ down_RI.T)
    rank = len(exact.down)
    squares = inner_RR.sum(), inner_RR[:rank, :rank].sum()
    missing, whole = (float(square.clamp(min=0).sqrt()) for square in squares)
    return missing, whole


def _fit_layer(
    layer: str, change: WeightChange, base: Tensor | None, holds: Holds, limits: Limits
) -> WeightChange:
    """Choose the smallest form that the layout holds and the limits allow."""
    match change:
        case LowRankChange():
            return _cut(change, limits) if limits.cuts else change
        case Decomposed(LowRankChange(), _, 0) if holds.dora and not limits.cuts:
            return change
        case Full(delta):
            pass
        case Decomposed() | Replaced():
            assert base is not None, layer
            delta = delta_of(change, base)
        case _:
            assert_never(change)
    if delta.ndim < 2:
        if holds.full:
            return Full(delta)
        raise ExportError(
            f"the adapter changes the normalization layer {layer}, which has no low rank; expected "
            "a target that holds full changes; export it to comfyui, a1111 or invokeai"
        )
    found = factorize(delta, rank=limits.rank, energy=limits.energy, error=limits.error)
    if holds.full and found.down.numel() + found.up.numel() >= delta.numel():
        return Full(delta)
    return LowRankChange(found.down, found.up)


def _cut(change: LowRankChange, limits: Limits) -> LowRankChange:
    """Cut the rank of a product without ever forming it: the singular values are its core's.

    With up = Q R and down^T = P S, the product is Q (R S^T) P^T and Q, P keep all norms.
    """
    q_OR, r_RR = torch.linalg.qr(change.up.double().flatten(1))
    p_IR, s_RR = torch.linalg.qr(change.down.double().flatten(1).T)
    core = factorize(r_RR @ s_RR.T, rank=limits.rank, energy=limits.energy, error=limits.error)
    up = (q_OR @ core.up.double()).float()
    down = (core.down.double() @ p_IR.T).float()
    tail = [1] * (change.up.ndim - 2)
    return LowRankChange(
        down.view(core.rank, *change.down.shape[1:]), up.view(len(up), core.rank, *tail)
    )


def _rounded(change: WeightChange, dtype: torch.dtype) -> WeightChange:
    """Store a change in `dtype`.

    DoRA's norms stay in float32: they are the base's own, so that rounding them would outweigh the
    change.
    """
    match change:
        case LowRankChange():
            return _rounded_pair(change, dtype)
        case Full(delta):
            return Full(_stored(delta, dtype))
        case Decomposed(LowRankChange() as pair, magnitude, axis):
            return Decomposed(_rounded_pair(pair, dtype), magnitude, axis)
        case Decomposed() | Replaced():
            return change
        case _:
            assert_never(change)


def _rounded_pair(pair: LowRankChange, dtype: torch.dtype) -> LowRankChange:
    """Bring both factors to one size by a power of two, which loses nothing, and round them.

    An up factor that learned little would else fall below half precision's normal numbers.
    """
    down, up = pair.down.float(), pair.up.float()
    sizes = [float(factor.square().mean().sqrt()) for factor in (down, up)]
    if dtype != torch.float32 and all(sizes):
        power = round(torch.tensor(sizes[0] / sizes[1]).log2().item() / 2)
        down, up = down * 2.0**-power, up * 2.0**power
    return LowRankChange(_stored(down, dtype), _stored(up, dtype))


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to `dtype`, or keep float32 where its range is too small for these numbers."""
    small = tensor.to(dtype)
    lost = (small.float() - tensor).norm()
    fits = bool(small.isfinite().all()) and lost <= torch.finfo(dtype).eps * tensor.norm()
    return (small if fits else tensor.float()).contiguous()
