"""What an adapter changes, free of any file's names: the values between `from_x` and `to_x`.

Every layout is read into `Changes` and written from them. Layers are named as in adapter files
(`denoiser.<path>`, `text_encoder.<path>` and so on); scales are always baked in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

if TYPE_CHECKING:
    from torch import Tensor

StartKind = Literal["pissa", "olora"]


class Weights(Protocol):
    """The base's weights by layer, each read when asked for (`families.weights.BaseWeights`)."""

    def __getitem__(self, layer: str, /) -> Tensor:
        """Read a weight (O, I, ...)."""
        ...

    def shape(self, layer: str, /) -> tuple[int, ...]:
        """Return its shape alone."""
        ...

    def __contains__(self, layer: object, /) -> bool:
        """Tell whether the base has such a layer."""
        ...


@dataclass(frozen=True)
class LowRankChange:
    """The change `up` (O, r, 1, ...) times `down` (r, I, ...)."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Full:
    """The change itself, in the weight's shape (O, I, ...) or flattened to (O, the rest)."""

    delta: Tensor


@dataclass(frozen=True)
class Replaced:
    """The weight that takes the base's place."""

    weight: Tensor


@dataclass(frozen=True)
class Decomposed:
    """DoRA (arXiv 2402.09353): the changed weight rescaled to `magnitude` along one axis.

    `axis` 0 keeps a norm per output, as peft trains it; 1 a norm per input, as LyCORIS does.
    """

    change: LowRankChange | Full
    magnitude: Tensor
    axis: Literal[0, 1] = 0


WeightChange = LowRankChange | Full | Replaced | Decomposed


@dataclass(frozen=True)
class Start:
    """How factors started from the base's own weight, which lost `scale` times that start."""

    kind: StartKind
    scale: float = 1.0


@dataclass(frozen=True)
class Changes:
    """All that a file carries: the change of each layer and the rows (n, D) of each word.

    `words` maps a word to its rows by text encoder; `biases` names layers whose bias the file
    changes too, which an adapter cannot hold. `starts` names layers whose factors are a change from
    the base without that start, until `foreign.starts` takes it off.
    """

    layers: Mapping[str, WeightChange] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    starts: Mapping[str, Start] = field(default_factory=dict)


def delta_of(change: WeightChange, base: Tensor) -> Tensor:
    """Return what `change` adds to the `base` weight, float32 in its shape (O, I, ...)."""
    weight = base.float()
    match change:
        case LowRankChange(down, up):
            return (up.float().flatten(1) @ down.float().flatten(1)).view(base.shape)
        case Full(delta):
            return delta.float().view(base.shape)
        case Replaced(replacement):
            return replacement.float().view(base.shape) - weight
        case Decomposed(inner, magnitude, axis):
            merged = weight + delta_of(inner, base)
            kept = [-1 if dimension == axis else 1 for dimension in range(base.ndim)]
            others = [dimension for dimension in range(base.ndim) if dimension != axis]
            squared = merged.square().sum(dim=others, keepdim=True)
            return merged * (magnitude.float().view(kept) * squared.rsqrt()) - weight
        case _:
            assert_never(change)


def outline(change: WeightChange) -> Tensor:
    """Return zeros of a change's shape that take no memory, for all that needs the shape alone."""
    import torch

    match change:
        case LowRankChange(down, up):
            shape: tuple[int, ...] = (up.shape[0], *down.shape[1:])
        case Full(tensor) | Replaced(tensor):
            shape = tuple(tensor.shape)
        case Decomposed(inner):
            return outline(inner)
        case _:
            assert_never(change)
    return torch.zeros(1).expand(shape)
