"""Combine the changes of one layer by one method, and cut the result to low rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import assert_never

from torch import Tensor

from customize.adapters.deltas import weight_delta
from customize.adapters.factors import Limits, factorize, factorize_product
from customize.merging.inputs import Input, placeholder
from customize.merging.methods import Concat, Dare, Linear, Svd, Ties
from customize.merging.sums import concat, dare, linear, ties


@dataclass(frozen=True)
class MergedChange:
    """A layer's merged change: `full` (O, I, ...), the product of `up` and `down`, or their sum.

    `loss` is the relative error of what was cut off, None where nothing was.
    """

    full: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    loss: float | None = None

    def tensors(self, layer: str) -> Iterator[tuple[str, Tensor]]:
        """Yield the layer's tensors under their names in an adapter file of scale 1."""
        kinds = {"delta": self.full, "lora_A": self.down, "lora_B": self.up}
        return ((f"{layer}.{kind}", t) for kind, t in kinds.items() if t is not None)

    def product(self) -> Tensor:
        """Return the whole change (O, I, ...), float32."""
        if self.down is None or self.up is None:
            assert self.full is not None, "a change of nothing"
            return self.full
        shape = (self.up.shape[0], *self.down.shape[1:])
        low_rank = (self.up.flatten(1) @ self.down.flatten(1)).view(shape)
        return low_rank if self.full is None else self.full + low_rank


@dataclass(frozen=True)
class MergedLayer:
    """One layer and the inputs that change it; `weight_of` reads the base's weight of a layer.

    Iterating gives the inputs' exact changes (float32, in the weight's shape) one by one, made anew
    each time, so that no more than one need be in memory.
    """

    name: str
    inputs: tuple[Input, ...]
    weight_of: Callable[[str], Tensor]

    @property
    def weights(self) -> tuple[float, ...]:
        """What each of these inputs' change is multiplied by."""
        return tuple(item.weight for item in self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the layer's weight."""
        return self.inputs[0].shapes[self.name]

    @property
    def rank(self) -> int | None:
        """The sum of the inputs' ranks, None where one of them is not low-rank."""
        ranks = [item.rank(self.name) for item in self.inputs]
        low = [rank for rank in ranks if rank is not None]
        return sum(low) if len(low) == len(ranks) else None

    @property
    def thin(self) -> bool:
        """Whether the sum takes less room as factors than as a full weight."""
        rank, whole = self.rank, prod(self.shape)
        return rank is not None and rank * (self.shape[0] + whole // self.shape[0]) < whole

    def __iter__(self) -> Iterator[Tensor]:
        """Make the changes."""
        return map(self.delta, self.inputs)

    def delta(self, item: Input) -> Tensor:
        """Make one input's change; the base's weight is read only where it counts."""
        needs = item.needs_weight(self.name)
        base = self.weight_of(self.name) if needs else placeholder(item.shapes[self.name])
        return weight_delta(item.adapter, self.name, base)


def combine(
    method: Linear | Concat | Svd | Ties | Dare, layer: MergedLayer, limits: Limits
) -> MergedChange:
    """Merge one layer by a method that looks at nothing else, and cut it by the limits."""
    match method:
        case Linear() if not limits.cuts:
            return (
                stacked_factors(layer)
                if layer.thin
                else MergedChange(full=linear(layer, layer.weights))
            )
        case Concat():
            return cut(stacked_factors(layer), limits) if limits.cuts else stacked_factors(layer)
        case Svd() | Linear():
            return cut(stacked_factors(layer), limits)
        case Ties():
            merged = ties(layer, layer.weights, density=method.density)
        case Dare():
            merged = dare(
                layer,
                layer.weights,
                density=method.density,
                seeds=[_seed(method.seed, item, layer.name) for item in layer.inputs],
                then=method.then,
            )
        case _:
            assert_never(method)
    return cut(MergedChange(full=merged), limits) if limits.cuts else MergedChange(full=merged)


def stacked_factors(layer: MergedLayer) -> MergedChange:
    """Sum changes exactly, those that are low-rank by stacking their factors."""
    low_rank, whole = list[tuple[Tensor, Tensor, float]](), list[Input]()
    for item in layer.inputs:
        if factors := item.factors(layer.name):
            low_rank.append((*factors, item.weight))
        else:
            whole.append(item)
    full = linear(map(layer.delta, whole), [i.weight for i in whole]) if whole else None
    if not low_rank:
        return MergedChange(full=full)
    downs, ups, weights = zip(*low_rank, strict=True)
    down, up = concat(downs, ups, weights)
    return MergedChange(full, down, up)


def cut(change: MergedChange, limits: Limits) -> MergedChange:
    """Keep a change's greatest singular values by the limits; without any, all there are."""
    options = {"rank": limits.rank, "energy": limits.energy, "error": limits.error}
    if change.full is None and change.down is not None and change.up is not None:
        factors = factorize_product(change.down, change.up, **options)
    else:
        factors = factorize(change.product(), **options)
    return MergedChange(down=factors.down, up=factors.up, loss=factors.relative_error)


def _seed(seed: int, item: Input, layer: str) -> int:
    """Draw differently for every file and layer, and the same in whatever order files come."""
    digest = hashlib.sha256(f"{seed} {item.sha256} {layer}".encode()).digest()
    return int.from_bytes(digest[:7], "little")
