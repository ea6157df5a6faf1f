"""Teach the layers that turn text into keys and values, in full (arXiv 2212.04488, sec. 3.2).

What is learned is the change of each weight, kept beside it: y = W x + b + D x. The base's W stays
bit-equal, the change is float32 under any base precision (quantized ones too), and leaving D out is
the base exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from customize.adapters.autocast import autocasts
from customize.errors import BaseModelError
from customize.families import Family


class KeyValueDeltas:
    """The denoiser's share of a K/V adapter: a `delta` in every layer, added by a forward hook.

    Hooks keep modules, their names and diffusers' attention processors as they are.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        """Add a zero change and a hook to each layer."""
        self._layers, self._enabled = dict(layers), True
        for layer in self._layers.values():
            layer.register_parameter("delta", nn.Parameter(_zeros(layer)))
            layer.register_forward_hook(self._add)

    def _add(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not self._enabled:
            return output
        read_BLK = inputs[0]
        if not autocasts(read_BLK.device.type):  # where it does, a float32 copy is cast back
            read_BLK = read_BLK.to(layer.delta.dtype)
        return output + F.linear(read_BLK, layer.delta).to(output.dtype)

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Return each layer's weight change (N, K)."""
        return {f"denoiser.{name}.delta": _delta(layer) for name, layer in self._layers.items()}

    def movement(self) -> float:
        """Return the Frobenius norm of all changes."""
        return sum(float(d.detach().square().sum()) for d in self.tensors().values()) ** 0.5

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Leave the changes out while inside."""
        self._enabled = False
        try:
            yield
        finally:
            self._enabled = True


def attach(family: Family) -> KeyValueDeltas:
    """Add zero changes to all keys and values of text; raises BaseModelError where none are."""
    pattern = family.profile.layers.text_kv
    layers = {n: m for n, m in family.denoiser.named_modules() if re.fullmatch(pattern, n)}
    if not layers:
        raise BaseModelError(
            "adapter.method cross_attention_kv: this base has no key and value layers that read "
            "text; expected cross-attention",
            "use method low_rank",
        )
    return KeyValueDeltas(layers)


def _zeros(layer: Any) -> Tensor:
    """Start at no change; sizes come from the layer, since a quantized weight's shape is packed."""
    return torch.zeros(layer.out_features, layer.in_features, device=layer.weight.device)


def _delta(layer: nn.Module) -> nn.Parameter:
    delta = layer.delta
    assert isinstance(delta, nn.Parameter)
    return delta
