"""The UNet's modules as the original Stable Diffusion code names them, and as diffusers does.

Both number the same blocks differently: diffusers by level, the original (ldm, and Stability's
later code) by one running count down and one up. The tables are generated from the block structure,
so that they hold for any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Blocks:
    """A UNet's structure: residual layers in a level, and which levels attend, from the outside."""

    layers: int
    attends: tuple[bool, ...]


SD1 = Blocks(2, (True, True, True, False))
SDXL = Blocks(2, (False, True, True))

# Modules outside the levels.
_AROUND = (
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)
# Inside a residual block; attention blocks are named alike inside.
_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)


def blocks_of(unet_config: Mapping[str, Any]) -> Blocks:
    """Read the structure from a diffusers UNet's config (its `config.json`)."""
    layers = unet_config["layers_per_block"]
    assert isinstance(layers, int), layers
    return Blocks(layers, tuple("CrossAttn" in kind for kind in unet_config["down_block_types"]))


def to_ldm(path: str, blocks: Blocks) -> str:
    """Name a diffusers module (`down_blocks.0.resnets.0.conv1`) as ldm does, without its prefix.

    >>> to_ldm("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", SD1)
    'input_blocks.4.1.transformer_blocks.0.attn2.to_k'

    Raises KeyError for a module that the structure does not have.
    """
    return _renamed(path, _to_ldm(blocks))


def from_ldm(path: str, blocks: Blocks, *others: Blocks) -> str:
    """Name an ldm module (`input_blocks.1.0.in_layers.2`) as diffusers does.

    >>> from_ldm("input_blocks.1.0.in_layers.2", SD1)
    'down_blocks.0.resnets.0.conv1'

    Several structures with the same number of layers in a level read as one: no name of SD1 means
    another module in SDXL. Raises KeyError for a module that no structure has.
    """
    return _renamed(path, _from_ldm(blocks, *others))


def _renamed(path: str, table: Mapping[str, str]) -> str:
    """Replace the longest prefix of `path`, in whole words, that the table has."""
    words = path.split(".")
    for count in range(len(words), 0, -1):
        if new := table.get(".".join(words[:count])):
            return ".".join([new, *words[count:]])
    raise KeyError(path)


@cache
def _to_ldm(blocks: Blocks) -> Mapping[str, str]:
    return dict(_pairs(blocks))


@cache
def _from_ldm(*structures: Blocks) -> Mapping[str, str]:
    return {ldm: diffusers for blocks in structures for diffusers, ldm in _pairs(blocks)}


def _pairs(blocks: Blocks) -> Iterator[tuple[str, str]]:
    """Yield every block and every module inside residual blocks under both names."""
    for ours, theirs in (*_AROUND, *_levels(blocks)):
        yield ours, theirs
        if ".resnets." in ours:
            for inner, ldm in _RESNET:
                yield f"{ours}.{inner}", f"{theirs}.{ldm}"


def _levels(blocks: Blocks) -> Iterator[tuple[str, str]]:
    """Number the blocks of all levels: after conv_in on the way down, from 0 on the way up."""
    last = len(blocks.attends) - 1
    down, up = 1, 0
    for level, attends in enumerate(blocks.attends):
        for layer in range(blocks.layers):
            yield f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{down}.0"
            if attends:
                yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{down}.1"
            down += 1
        if level < last:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{down}.0.op"
            down += 1
    for level, attends in enumerate(reversed(blocks.attends)):
        for layer in range(blocks.layers + 1):
            yield f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{up}.0"
            if attends:
                yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{up}.1"
            up += 1
        if level < last:
            place = 2 if attends else 1
            upsampler = f"output_blocks.{up - 1}.{place}.conv"
            yield f"up_blocks.{level}.upsamplers.0.conv", upsampler
