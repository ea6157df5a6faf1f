"""The names of single-file checkpoints (the original "ldm" layout) as tables, read in both ways.

The longest entry of a table that begins a tensor's name decides, and what follows it stays; turned
around, the same table leads back. The UNet's table is `ldm_names`', the second text encoder's
`open_clip_keys`'. ComfyUI and A1111 know a model's kind from these names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from customize.exporting.formats import ldm_names
from customize.exporting.whole_model import open_clip_keys

UnetConfig = Mapping[str, Any]
Table = Mapping[str, str]

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
    components: Mapping[str, Mapping[str, Tensor]], configs: Mapping[str, UnetConfig]
) -> dict[str, Tensor]:
    """Name every tensor of diffusers' components as a single-file checkpoint does.

    `components` holds the state dicts of `unet`, `vae`, `text_encoder` and, for SDXL,
    `text_encoder_2`; `configs` those of `unet` and `vae`. Raises KeyError for a UNet's module that
    its config does not have.
    """
    named: dict[str, Tensor] = {}
    for component, prefix in prefixes(list(components)).items():
        config = configs.get(component, {})
        for name, tensor in _to_ldm(component, components[component], config):
            assert prefix + name not in named, name
            named[prefix + name] = tensor
    return named


def from_single_file(
    tensors: Mapping[str, Tensor], configs: Mapping[str, UnetConfig]
) -> dict[str, dict[str, Tensor]]:
    """Undo `to_single_file`: state dicts by component, named as diffusers names them.

    `configs` has an entry for each component to read, empty ones for text encoders. Tensors of no
    component are left out.
    """
    components: dict[str, dict[str, Tensor]] = {}
    for component, prefix in prefixes(list(configs)).items():
        own = {n.removeprefix(prefix): tensors[n] for n in tensors if n.startswith(prefix)}
        components[component] = dict(_from_ldm(component, own, configs[component]))
    return components


def _to_ldm(
    component: str, tensors: Mapping[str, Tensor], config: UnetConfig
) -> Iterator[tuple[str, Tensor]]:
    match component:
        case "unet":
            blocks = ldm_names.blocks_of(config)
            yield from ((ldm_names.to_ldm(name, blocks), t) for name, t in tensors.items())
        case "vae":
            table = vae_table(config)
            for name, tensor in tensors.items():
                renamed = _rename(name, table)
                # ldm's autoencoder attends by 1x1 convolutions, diffusers' by matrices.
                is_convolution = _VAE_ATTENTION_WEIGHT.fullmatch(renamed)
                yield renamed, tensor[:, :, None, None] if is_convolution else tensor
        case "text_encoder":
            # Older transformers keep a level `text_model.` that newer ones dropped.
            yield from ((name.removeprefix("text_model."), t) for name, t in tensors.items())
        case _:
            yield from open_clip_keys.to_open_clip(tensors)


def _from_ldm(
    component: str, tensors: Mapping[str, Tensor], config: UnetConfig
) -> Iterator[tuple[str, Tensor]]:
    match component:
        case "unet":
            blocks = ldm_names.blocks_of(config)
            yield from ((ldm_names.from_ldm(name, blocks), t) for name, t in tensors.items())
        case "vae":
            table = {theirs: ours for ours, theirs in vae_table(config).items()}
            for name, tensor in tensors.items():
                is_convolution = _VAE_ATTENTION_WEIGHT.fullmatch(name)
                yield _rename(name, table), tensor[:, :, 0, 0] if is_convolution else tensor
        case "text_encoder":
            yield from tensors.items()
        case _:
            yield from open_clip_keys.from_open_clip(tensors)


def vae_table(config: UnetConfig) -> dict[str, str]:
    """Return the autoencoder's names, diffusers' to ldm's.

    >>> config = {"layers_per_block": 2, "down_block_types": ["DownEncoderBlock2D"] * 4}
    >>> vae_table(config)["decoder.up_blocks.0.resnets.2"]
    'decoder.up.3.block.2'
    """
    return dict(_vae_modules(config["layers_per_block"], len(config["down_block_types"])))


def _vae_modules(layers: int, blocks: int) -> Iterator[tuple[str, str]]:
    """Name both halves' blocks; ldm counts the decoder's from the picture's side."""
    for half in ("encoder", "decoder"):
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
        for index in (0, 1):
            ours, theirs = f"{half}.mid_block.resnets.{index}", f"{half}.mid.block_{index + 1}"
            yield from _leaves(ours, theirs, _VAE_RESNET)
        yield from _leaves(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION)
    for block in range(blocks):
        ours, theirs = f"encoder.down_blocks.{block}", f"encoder.down.{block}"
        for layer in range(layers):
            yield from _leaves(f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}", _VAE_RESNET)
        yield f"{ours}.downsamplers.0", f"{theirs}.downsample"
        ours, theirs = f"decoder.up_blocks.{block}", f"decoder.up.{blocks - 1 - block}"
        for layer in range(layers + 1):
            yield from _leaves(f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}", _VAE_RESNET)
        yield f"{ours}.upsamplers.0", f"{theirs}.upsample"


def _leaves(ours: str, theirs: str, table: Table) -> Iterator[tuple[str, str]]:
    """Yield a module and those of its layers that are named differently."""
    yield ours, theirs
    yield from ((f"{ours}.{our}", f"{theirs}.{their}") for our, their in table.items())


def _rename(name: str, table: Table) -> str:
    """Replace the longest whole-level beginning of `name` that `table` knows, if any."""
    levels = name.split(".")
    for count in range(len(levels) - 1, 0, -1):
        if (begin := ".".join(levels[:count])) in table:
            return ".".join([table[begin], *levels[count:]])
    return name
