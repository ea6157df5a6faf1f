"""SDXL's second text encoder in OpenCLIP's names: q, k and v fused, the projection turned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OURS = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_THEIRS = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_FUSED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


def to_open_clip(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Rename the tensors of a CLIPTextModelWithProjection; each layer's q, k, v become one."""
    for name, tensor in tensors.items():
        layer = _OURS.fullmatch(name)
        if name == "text_projection.weight":
            yield "text_projection", tensor.T
        elif name in _ENDS:
            yield _ENDS[name], tensor
        elif layer is not None and layer[2] in _LAYER:
            yield f"transformer.resblocks.{layer[1]}.{_LAYER[layer[2]]}.{layer[3]}", tensor
        elif layer is not None and layer[2] == "self_attn.q_proj":
            parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            yield f"transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}", torch.cat(parts)
        else:
            assert re.search(r"self_attn\.[kv]_proj\.", name), name  # fused with q above


def from_open_clip(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Undo `to_open_clip`; tensors that only OpenCLIP has, such as `logit_scale`, are left out."""
    ends = {theirs: ours for ours, theirs in _ENDS.items()}
    layers = {theirs: ours for ours, theirs in _LAYER.items()}
    for name, tensor in tensors.items():
        layer, fused = _THEIRS.fullmatch(name), _FUSED.fullmatch(name)
        if name == "text_projection":
            yield "text_projection.weight", tensor.T
        elif name in ends:
            yield ends[name], tensor
        elif fused is not None:
            begin = f"text_model.encoder.layers.{fused[1]}.self_attn"
            for part, values in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{begin}.{part}_proj.{fused[2]}", values
        elif layer is not None and layer[2] in layers:
            yield f"text_model.encoder.layers.{layer[1]}.{layers[layer[2]]}.{layer[3]}", tensor
