"""Hold the frozen base's attention and feed-forward weights in 8 or 4 bits, by bitsandbytes.

The layers whose weights an adapter changes in full stay as they are; low-rank factors sit beside
quantized layers (QLoRA, arXiv 2305.14314). Convolutions, for which bitsandbytes has no form, and
the small layers that read the noise level keep their precision.
"""

from __future__ import annotations

import re
from typing import Any, Literal, assert_never

from torch import nn

from customize.errors import TrainingError
from customize.families.loading.quiet import hush
from customize.families.profile import Layers

Quantization = Literal["int8", "nf4"]


def quantize(
    denoiser: nn.Module, layers: Layers, kind: Quantization, *, keep_text_kv: bool = False
) -> int:
    """Replace the denoiser's large linear layers in place; returns how many.

    With `keep_text_kv` keys and values of text stay as they are. Raises TrainingError where
    bitsandbytes does not work.
    """
    found = quantizable(denoiser, layers, keep_text_kv=keep_text_kv)
    try:
        for name, layer in found.items():
            parent, _, child = name.rpartition(".")
            setattr(denoiser.get_submodule(parent), child, _quantized(layer, kind))
    except Exception as error:  # a missing or broken native library raises anything at all
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise TrainingError(
            f"base.quantization: {kind} does not work here ({reason}); expected bitsandbytes with "
            "support for this device; install it, or set it to none"
        ) from error
    return len(found)


def quantizable(
    denoiser: nn.Module, layers: Layers, *, keep_text_kv: bool = False
) -> dict[str, nn.Linear]:
    """Find the linear layers that may be quantized, by name."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear)
        and re.fullmatch(layers.quantized, name)
        and not (keep_text_kv and re.fullmatch(layers.text_kv, name))
    }


def quantized_bytes(layer: nn.Linear, kind: Quantization) -> int:
    """Count the bytes of a layer's weight once quantized, its scales included."""
    match kind:
        case "int8":
            return layer.weight.numel() + 4 * layer.out_features
        case "nf4":  # a float32 scale for every 64 weights
            return layer.weight.numel() // 2 + 4 * -(-layer.weight.numel() // 64)
        case _:
            assert_never(kind)


def _quantized(layer: nn.Linear, kind: Quantization) -> nn.Module:
    """Make bitsandbytes' layer of the same weight, on the same device; frozen."""
    hush()
    import bitsandbytes

    quantized: Any = bitsandbytes.nn  # its annotations lag behind its parameters
    sizes, bias = (layer.in_features, layer.out_features), layer.bias is not None
    weight = layer.weight.detach()
    made: Any
    match kind:
        case "int8":
            made = quantized.Linear8bitLt(*sizes, bias=bias, has_fp16_weights=False, device="meta")
            made.weight = quantized.Int8Params(
                weight.cpu(), requires_grad=False, has_fp16_weights=False
            )
        case "nf4":
            made = quantized.Linear4bit(
                *sizes, bias=bias, compute_dtype=weight.dtype, quant_type="nf4", device="meta"
            )
            made.weight = quantized.Params4bit(
                weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=False
            )
        case _:
            assert_never(kind)
    if bias:
        made.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return made.to(weight.device).requires_grad_(False)
