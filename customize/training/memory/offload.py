"""Keep the frozen base's large weights in the CPU's memory; each comes to the device to be used.

Autograd is given no weight to keep: a layer copies its own for the forward pass and again for the
backward pass, which needs the input's gradient only. diffusers' group offloading serves inference:
its hooks swap `param.data` after the forward pass, so that a convolution's backward pass would read
what was put in the weight's place, and a linear layer's keeps the copy on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from customize.adapters.autocast import autocasts
from customize.families import Family

SMALLEST = 2**16
"""Weights with fewer elements stay on the device: a copy costs its start, whatever its size."""


def offload_family(family: Family, device: torch.device) -> Family:
    """Move a family from the CPU to `device`, all but the large frozen weights of its networks."""
    for module in (family.denoiser, *family.text_encoders.values()):
        offload(module, device)
    return replace(family, objective=family.objective.to(device))


def offload(module: nn.Module, device: torch.device) -> int:
    """Move `module` to `device` but for its large frozen weights; returns the bytes left behind.

    Layers remain the same objects, of another class: names, hooks and wrappers keep working. Their
    weights are no parameters any more, so that nothing moves, synchronizes or saves them.
    """
    kept = 0
    large: list[Any] = [layer for layer in module.modules() if _offloadable(layer)]
    for layer in large:
        weight = layer.weight.detach().cpu()
        del layer.weight
        # As torch.nn.utils.parametrize does: a new object would lose hooks and its place in peft.
        layer.__class__ = _KINDS[type(layer)]
        layer.stored = Stored(weight.pin_memory() if device.type == "cuda" else weight, device)
        kept += weight.nbytes
    module.to(device)
    return kept


@dataclass(frozen=True, eq=False)
class Stored:
    """A weight in the CPU's memory, and where it is used; pinned for a GPU, which then reads it
    itself while the host goes on."""

    weight: Tensor
    device: torch.device

    def fetch(self, dtype: torch.dtype | None = None) -> Tensor:
        """Copy it to the device and round it there; a weight without content is copied anywhere."""
        copied = self.weight.to(self.device, non_blocking=True, copy=is_fake(self.weight))
        return copied if dtype is None else copied.to(dtype)


class OffloadedLinear(nn.Linear):
    """A frozen linear layer whose weight is elsewhere between uses; made by `offload` alone."""

    stored: Stored

    def __new__(cls, *sizes: Any, **options: Any) -> Any:
        """Make a plain layer: peft makes its factors of the kind of the layer beside them."""
        return nn.Linear(*sizes, **options)

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A copy on the device, for those that ask; DoRA measures it at every step."""
        return self.stored.fetch()

    def forward(self, input: Tensor) -> Tensor:
        """Compute x Wᵀ + b, in autocast's precision where it is on."""
        return _FrozenLinear.apply(*_autocast(input, self.bias), self.stored)  # pyright: ignore


class OffloadedConv2d(nn.Conv2d):
    """A frozen convolution whose weight is elsewhere between uses; made by `offload` alone."""

    stored: Stored

    def __new__(cls, *sizes: Any, **options: Any) -> Any:
        """Make a plain layer: peft makes its factors of the kind of the layer beside them."""
        return nn.Conv2d(*sizes, **options)

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A copy on the device, for those that ask."""
        return self.stored.fetch()

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, h, w), in autocast's precision where it is on."""
        settings = self.stride, self.padding, self.dilation, self.groups
        return _FrozenConv2d.apply(  # pyright: ignore
            *_autocast(input, self.bias), self.stored, settings
        )


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, bias: Tensor | None, dtype: torch.dtype | None, stored: Stored
    ) -> Tensor:
        ctx.stored = stored
        return F.linear(input, stored.fetch(dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        return gradient @ ctx.stored.fetch(gradient.dtype), None, None, None


class _FrozenConv2d(torch.autograd.Function):
    """Unlike torch's own, it does not keep its input: that is for the weight's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype | None,
        stored: Stored,
        settings: tuple[Any, ...],
    ) -> Tensor:
        ctx.shape, ctx.stored, ctx.settings = input.shape, stored, settings
        return F.conv2d(input, stored.fetch(dtype), bias, *settings)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        weight = ctx.stored.fetch(gradient.dtype)
        found = conv2d_input(ctx.shape, weight, gradient, *ctx.settings)
        return found, None, None, None, None


_KINDS = {nn.Linear: OffloadedLinear, nn.Conv2d: OffloadedConv2d}


def _offloadable(layer: Any) -> bool:
    """Tell whether a layer is large, frozen, and of exactly a kind that there is a way for."""
    if type(layer) not in _KINDS or layer.weight.numel() < SMALLEST:
        return False
    if isinstance(layer, nn.Conv2d) and (
        layer.padding_mode != "zeros" or isinstance(layer.padding, str)
    ):
        return False
    return not (layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad))


def _autocast(
    input: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, torch.dtype | None]:
    """Round to autocast's precision where it is on, as it cannot see into a function of our own.

    Returns the weight's precision last; None leaves it as it is.
    """
    kind = input.device.type
    if not autocasts(kind):
        return input, bias, None
    dtype = torch.get_autocast_dtype(kind)
    return input.to(dtype), None if bias is None else bias.to(dtype), dtype
