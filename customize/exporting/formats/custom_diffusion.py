"""Custom Diffusion's own file (arXiv 2212.04488): the weights of cross-attention's keys and values.

Only diffusers reads it, as `unet.load_attn_procs(folder, weight_name=..., _pipeline=pipe)`; without
`_pipeline` version 0.42 sets no processor and says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from customize.errors import ExportError
from customize.exporting.changes import Changes, Weights, delta_of
from customize.exporting.formats.diffusers_lora import layer_of
from customize.exporting.formats.tensor_roles import gather

FILE = "pytorch_custom_diffusion_weights.safetensors"
_KEY_VALUE = re.compile(r"denoiser\.(.+\.attn2)\.to_([kv])")
_ATTENTION = re.compile(r"denoiser\.(.+\.attn[12])\.to_[kv]")


def to_custom_diffusion(
    changes: Changes, layers: Iterable[str], weights: Weights
) -> dict[str, Tensor]:
    """Write the whole weights of every cross-attention of the base, float32.

    `layers` are all layers of the base. diffusers wants a processor for each attention, self-
    attention's too, which an empty tensor stands for. Raises ExportError for any other change.
    """
    other = [layer for layer in changes.layers if not _KEY_VALUE.fullmatch(layer)]
    if other:
        raise ExportError(
            f"custom-diffusion: the adapter changes {len(other)} layers such as {other[0]}; "
            "expected keys and values of cross-attention alone; export it to diffusers or kohya"
        )
    tensors = {}
    for layer in layers:
        if not (found := _ATTENTION.fullmatch(layer)):
            continue
        processor = f"{found[1]}.processor"
        if not (key_value := _KEY_VALUE.fullmatch(layer)):
            tensors[processor] = torch.zeros(0)
            continue
        weight = weights[layer].float()
        if change := changes.layers.get(layer):
            weight = weight + delta_of(change, weight)
        tensors[f"{processor}.to_{key_value[2]}_custom_diffusion.weight"] = weight
    return tensors


def from_custom_diffusion(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Changes:
    """Read the file; its weights replace the base's, so the changes are known with the base."""
    return gather({key: tensor for key, tensor in tensors.items() if tensor.numel()}, layer_of)
