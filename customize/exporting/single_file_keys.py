"""The names of single-file checkpoints (the original "ldm" layout) as tables, read in both ways.

Each component has one table from diffusers' module names to ldm's. The longest entry that begins a
tensor's name decides; what follows it stays. Turned around, the same table leads back. ComfyUI and
A1111 know a model's kind from these names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from customize.exporting import open_clip_keys

Config = Mapping[str, Any]
Table = Mapping[str, str]

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_VAE_ATTENTION_WEIGHT = re.compile(r"(?:en|de)coder\.mid\.attn_1\.(?:q|k|v|proj_out)\.weight")

_PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
_SD1_TEXT = {"text_encoder": "cond_stage_model.transformer.text_model."}
_SDXL_TEXT = {
    "text_encoder": "conditioner.embedders.0.transformer.text_model.",
    "text_encoder_2": "conditioner.embedders.1.model.",
}


def prefixes(components: Sequence[str]) -> dict[str, str]:
    """Say under which prefix each component lies; a second text encoder makes it SDXL's layout."""
    text = _SDXL_TEXT if "text_encoder_2" in components else _SD1_TEXT
    return {name: (_PREFIXES | text)[name] for name in components}


def to_single_file(
    components: Mapping[str, Mapping[str, Tensor]], configs: Mapping[str, Config]
) -> dict[str, Tensor]:
    """Name every tensor of diffusers' components as a single-file checkpoint does.

    `components` holds the state dicts of `unet`, `vae`, `text_encoder` and, for SDXL,
    `text_encoder_2`; `configs` those of `unet` and `vae`.
    """
    named: dict[str, Tensor] = {}
    for component, prefix in prefixes(list(components)).items():
        for name, tensor in _to_ldm(component, components[component], configs):
            assert prefix + name not in named, name
            named[prefix + name] = tensor
    return named


def from_single_file(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Config]
) -> dict[str, dict[str, Tensor]]:
    """Undo `to_single_file`: state dicts by component, named as diffusers names them.

    `configs` has an entry for each component to read, empty ones for text encoders. Tensors of no
    component are left out.
    """
    components: dict[str, dict[str, Tensor]] = {}
    for component, prefix in prefixes(list(configs)).items():
        own = {n.removeprefix(prefix): tensors[n] for n in tensors if n.startswith(prefix)}
        components[component] = dict(_from_ldm(component, own, configs))
    return components


def _to_ldm(
    component: str, tensors: Mapping[str, Tensor], configs: Mapping[str, Config]
) -> Iterator[tuple[str, Tensor]]:
    match component:
        case "text_encoder":
            # Older transformers keep a level `text_model.` that newer ones dropped.
            yield from ((name.removeprefix("text_model."), t) for name, t in tensors.items())
        case "text_encoder_2":
            yield from open_clip_keys.to_open_clip(tensors)
        case _:
            table = module_table(component, configs[component])
            for name, tensor in tensors.items():
                renamed = rename(name, table)
                # ldm's autoencoder attends by 1x1 convolutions, diffusers' by matrices.
                is_convolution = component == "vae" and _VAE_ATTENTION_WEIGHT.fullmatch(renamed)
                yield renamed, tensor[:, :, None, None] if is_convolution else tensor


def _from_ldm(
    component: str, tensors: Mapping[str, Tensor], configs: Mapping[str, Config]
) -> Iterator[tuple[str, Tensor]]:
    match component:
        case "text_encoder":
            yield from tensors.items()
        case "text_encoder_2":
            yield from open_clip_keys.from_open_clip(tensors)
        case _:
            table = _turned(module_table(component, configs[component]))
            for name, tensor in tensors.items():
                is_convolution = component == "vae" and _VAE_ATTENTION_WEIGHT.fullmatch(name)
                yield rename(name, table), tensor[:, :, 0, 0] if is_convolution else tensor


def module_table(component: str, config: Config) -> dict[str, str]:
    """Return the names of a `unet` or `vae` of this config, diffusers' to ldm's.

    >>> config = {"layers_per_block": 2, "down_block_types": ["CrossAttnDownBlock2D"]}
    >>> module_table("unet", config | {"up_block_types": []})["down_blocks.0.attentions.1"]
    'input_blocks.2.1'
    """
    return dict(_unet_modules(config) if component == "unet" else _vae_modules(config))


def rename(name: str, table: Table) -> str:
    """Replace the longest whole-level beginning of `name` that `table` knows.

    >>> rename("conv_in.weight", {"conv_in": "input_blocks.0.0"})
    'input_blocks.0.0.weight'
    """
    levels = name.split(".")
    for count in range(len(levels) - 1, 0, -1):
        if (begin := ".".join(levels[:count])) in table:
            return ".".join([table[begin], *levels[count:]])
    return name


def _turned(table: Table) -> dict[str, str]:
    turned = {new: old for old, new in table.items()}
    assert len(turned) == len(table), "two modules under one name"
    return turned


def _unet_modules(config: Config) -> Iterator[tuple[str, str]]:
    """Count ldm's flat lists of blocks, where each down- or upsampler ends a block."""
    layers = config["layers_per_block"]
    yield from _UNET_ENDS.items()
    yield from _leaves("mid_block.resnets.0", "middle_block.0", _UNET_RESNET)
    yield "mid_block.attentions.0", "middle_block.1"
    yield from _leaves("mid_block.resnets.1", "middle_block.2", _UNET_RESNET)
    for block in range(len(config["down_block_types"])):
        first = 1 + block * (layers + 1)
        for layer in range(layers):
            ours, theirs = f"down_blocks.{block}", f"input_blocks.{first + layer}"
            yield from _leaves(f"{ours}.resnets.{layer}", f"{theirs}.0", _UNET_RESNET)
            yield f"{ours}.attentions.{layer}", f"{theirs}.1"
        yield f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{first + layers}.0.op"
    for block, kind in enumerate(config["up_block_types"]):
        first = block * (layers + 1)
        for layer in range(layers + 1):
            ours, theirs = f"up_blocks.{block}", f"output_blocks.{first + layer}"
            yield from _leaves(f"{ours}.resnets.{layer}", f"{theirs}.0", _UNET_RESNET)
            yield f"{ours}.attentions.{layer}", f"{theirs}.1"
        after = 2 if "CrossAttn" in kind else 1
        upsampler = f"output_blocks.{first + layers}.{after}.conv"
        yield f"up_blocks.{block}.upsamplers.0.conv", upsampler


def _vae_modules(config: Config) -> Iterator[tuple[str, str]]:
    """Name the autoencoder's blocks; ldm counts the decoder's from the picture's side."""
    count, layers = len(config["down_block_types"]), config["layers_per_block"]
    for half in ("encoder", "decoder"):
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
        for index in (0, 1):
            ours, theirs = f"{half}.mid_block.resnets.{index}", f"{half}.mid.block_{index + 1}"
            yield from _leaves(ours, theirs, _VAE_RESNET)
        attention = f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
        yield from _leaves(*attention, _VAE_ATTENTION)
    for block in range(count):
        ours, theirs = f"encoder.down_blocks.{block}", f"encoder.down.{block}"
        for layer in range(layers):
            yield from _leaves(f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}", _VAE_RESNET)
        yield f"{ours}.downsamplers.0", f"{theirs}.downsample"
        ours, theirs = f"decoder.up_blocks.{block}", f"decoder.up.{count - 1 - block}"
        for layer in range(layers + 1):
            yield from _leaves(f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}", _VAE_RESNET)
        yield f"{ours}.upsamplers.0", f"{theirs}.upsample"


def _leaves(ours: str, theirs: str, table: Table) -> Iterator[tuple[str, str]]:
    """Yield a module and those of its layers that are named differently."""
    yield ours, theirs
    yield from ((f"{ours}.{our}", f"{theirs}.{their}") for our, their in table.items())
