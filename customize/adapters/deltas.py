"""The exact change an adapter makes to each base weight: pure functions, a layer at a time.

Editing, merging and exporting all read adapters through these, so they agree on what an adapter
means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from customize.adapters.concept_tokens import PREFIX
from customize.adapters.file import AdapterFile
from customize.errors import AdapterFileError


def layers(adapter: AdapterFile) -> tuple[str, ...]:
    """List the layers an adapter changes, `denoiser.<path>` or `text_encoder.<path>`, sorted."""
    names = (name for name in adapter.tensors if not name.startswith(PREFIX))
    return tuple(sorted({name.rpartition(".")[0] for name in names}))


def change_shapes(adapter: AdapterFile) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer's change, the weight's own, without reading a tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(adapter):
        whole, down = f"{layer}.delta", f"{layer}.lora_A"
        shapes[layer] = (
            tuple(adapter.tensors[whole].shape)
            if whole in adapter.tensors
            else (len(adapter.tensors[f"{layer}.lora_B"]), *adapter.tensors[down].shape[1:])
        )
    return shapes


def words(adapter: AdapterFile, component: str = "text_encoder") -> Mapping[str, Tensor]:
    """Return each word's embedding rows (vectors, D) in the text encoder `component`."""
    start = f"{PREFIX}{component}."
    names = [name for name in adapter.tensors if name.startswith(start)]
    return {name.removeprefix(start): adapter.tensors[name] for name in names}


def word_readers(adapter: AdapterFile) -> frozenset[str]:
    """Name the text encoders that an adapter teaches words to."""
    words = (name.removeprefix(PREFIX) for name in adapter.tensors if name.startswith(PREFIX))
    return frozenset(name.partition(".")[0] for name in words)


def weight_deltas(
    adapter: AdapterFile, weight_of: Callable[[str], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield (layer, change) one by one; `weight_of` gives a layer's untouched base weight."""
    for layer in layers(adapter):
        yield layer, weight_delta(adapter, layer, weight_of(layer))


@torch.no_grad()
def weight_delta(adapter: AdapterFile, layer: str, base: Tensor) -> Tensor:
    """Return what the adapter adds to the `base` weight of `layer`, float32 in its shape.

    Full change D; LoRA s B A (arXiv 2106.09685, eq. 3; convolutions too); DoRA m (W + s B A) / ||W
    + s B A|| - W with norms over each output's weights (arXiv 2402.09353, eq. 5, as peft applies
    it). A layer with several sums them. Raises AdapterFileError where shapes do not fit the base.
    """
    delta = _tensor(adapter, layer, "delta", base)
    down, up = _tensor(adapter, layer, "lora_A", base), _tensor(adapter, layer, "lora_B", base)
    magnitude = _tensor(adapter, layer, "magnitude", base)
    assert (down is None) == (up is None), layer
    total = torch.zeros(base.shape, device=base.device)
    if delta is not None:
        _check(layer, tuple(delta.shape), base)
        total += delta
    if down is not None and up is not None:
        _check(layer, (up.shape[0], *down.shape[1:]), base)
        low_rank = adapter.header.scale * (up.flatten(1) @ down.flatten(1)).view(base.shape)
        total += low_rank if magnitude is None else _decomposed(base.float(), low_rank, magnitude)
    return total


def _decomposed(base: Tensor, low_rank: Tensor, magnitude: Tensor) -> Tensor:
    merged = base + low_rank
    gain_N = magnitude.flatten() / merged.flatten(1).norm(dim=1)
    return merged * gain_N.view(-1, *[1] * (base.ndim - 1)) - base


def _tensor(adapter: AdapterFile, layer: str, kind: str, base: Tensor) -> Tensor | None:
    name = f"{layer}.{kind}"
    if name not in adapter.tensors:
        return None
    return adapter.tensors[name].to(base.device, torch.float32)


def _check(layer: str, shape: tuple[int, ...], base: Tensor) -> None:
    if shape != tuple(base.shape):
        raise AdapterFileError(
            f"the adapter's change of {layer} has shape {list(shape)} and the base's weight "
            f"{list(base.shape)}; expected the base it was made for; name that base"
        )
