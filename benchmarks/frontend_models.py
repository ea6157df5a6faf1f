"""Models of true names and shapes without weights, as each front end names their layers.

Packages that a front end imports and these paths never use are replaced by empty stand-ins.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from diffusers import (  # before the stand-ins: they look for torchvision
    Flux2Transformer2DModel,
    UNet2DConditionModel,
)
from geometry import unet_config
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from customize.exporting.formats.ldm_names import SD1, SDXL, to_ldm
from customize.exporting.formats.makers_names import PARTS
from customize.exporting.whole_model.single_file_keys import to_single_file

TEXT = {
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    "text_encoder_2": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32},
}

WORD_WIDTHS = {
    "sd1": {"text_encoder": 768},
    "xl": {"text_encoder": 768, "text_encoder_2": 1280},
}
"""Of a word's rows, by text encoder."""


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import empty modules for packages that are not installed here."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """Serve `names` and everything below them."""
        self._names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Find a stand-in, once nothing real was found."""
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self._names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        """Make a module that has every name."""

        class Empty(ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return MagicMock()

        return Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


def unet(size: str) -> Any:
    """Build diffusers' UNet of true names and shapes, without weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(**unet_config("sdxl" if size == "xl" else "sd15"))


def text_model(name: str) -> Any:
    """Build a CLIP text model whose layers are under `text_model.`, as front ends name them."""
    config: Any = CLIPTextConfig
    with torch.device("meta"):
        return CLIPTextModelWithProjection(config(**TEXT[name]))


def klein() -> Any:
    """Build diffusers' transformer of FLUX.2 klein 4B, without weights."""
    kind: Any = Flux2Transformer2DModel
    with torch.device("meta"):
        return kind(
            num_layers=5,
            num_single_layers=20,
            num_attention_heads=24,
            joint_attention_dim=3 * 2560,
            guidance_embeds=False,
        )


def klein_shapes() -> dict[str, Tensor]:
    """Name klein's tensors, which take no memory, as its makers do."""
    prefix, own = "model.diffusion_model.", klein().state_dict()
    named = dict[str, Tensor]()
    for whole, parts in PARTS.items():
        weights = [own[f"{part}.weight"] for part in parts if f"{part}.weight" in own]
        if weights:
            named[f"{prefix}{whole}.weight"] = torch.cat(weights)
        if whole.endswith("attn.qkv") and weights:
            width = own["transformer_blocks.0.attn.norm_q.weight"].new_empty(128)
            norm = f"{prefix}{whole.removesuffix('qkv')}norm"
            named |= {f"{norm}.{kind}_norm.scale": width for kind in ("query", "key")}
    return named


def ldm_shapes(size: str) -> dict[str, Tensor]:
    """Name the denoiser's tensors, which take no memory, as single-file checkpoints do."""
    if size == "klein":
        return klein_shapes()
    network = unet(size)
    return to_single_file({"unet": network.state_dict()}, {"unet": network.config})


def comfy_name(layer: str, size: str) -> str:
    """Name a layer's weight in ComfyUI's and Forge's models."""
    model, _, path = layer.partition(".")
    if size == "klein":
        return f"diffusion_model.{_makers(path)[0]}.weight"
    if model == "denoiser":
        return f"diffusion_model.{to_ldm(path, SD1 if size == 'sd1' else SDXL)}.weight"
    clip = "clip_l" if model == "text_encoder" else "clip_g"
    return f"{clip}.transformer.text_model.{path}.weight"


def rows_of(layer: str, shape: tuple[int, ...], size: str) -> tuple[int, slice]:
    """Return how tall a layer is in ComfyUI's models, and which of its rows are `layer`'s."""
    height = shape[0]
    if size != "klein":
        return height, slice(height)
    _, index, count = _makers(layer.removeprefix("denoiser."))
    return count * height, slice(index * height, (index + 1) * height)


def _makers(path: str) -> tuple[str, int, int]:
    """Find the makers' layer that `path` is part of: its name, which part, of how many."""
    for whole, parts in PARTS.items():
        if path in parts:
            return whole, parts.index(path), len(parts)
    raise KeyError(path)


def forge_config(size: str) -> dict[str, Any]:
    """Describe the UNet in ldm's terms, as Forge keeps it."""
    if size == "sd1":
        return {
            "num_res_blocks": [2] * 4,
            "channel_mult": [1, 2, 4, 4],
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1] * 9 + [0] * 3,
            "transformer_depth_middle": 1,
        }
    return {
        "num_res_blocks": [2] * 3,
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
    }


def clip_shapes(size: str) -> dict[str, Tensor]:
    """Name the text encoders' tensors as ComfyUI and Forge do."""
    clips = {"clip_l": "text_encoder"} | ({"clip_g": "text_encoder_2"} if size == "xl" else {})
    return {
        f"{clip}.transformer.{name}": tensor
        for clip, encoder in clips.items()
        for name, tensor in text_model(encoder).state_dict().items()
    }


def kohya_name(layer: str, *, xl: bool) -> str:
    """Name a layer as kohya's own networks do, whose SDXL UNet has Stability's names."""
    model, _, path = layer.partition(".")
    if model == "denoiser":
        return "lora_unet_" + (to_ldm(path, SDXL) if xl else path).replace(".", "_")
    number = "" if not xl else "1" if model == "text_encoder" else "2"
    return f"lora_te{number}_text_model_{path}".replace(".", "_")
