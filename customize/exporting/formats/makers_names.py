"""FLUX.2's layers in the names of its makers, where queries, keys and values are one layer.

ComfyUI, kohya's scripts and their like name layers so; diffusers, peft and InvokeAI as diffusers
does, which is how adapter files name them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import (
    Changes,
    Decomposed,
    Full,
    LowRankChange,
    Replaced,
    WeightChange,
    outline,
)

# By kind of block: the makers' layer, and diffusers' in its place, from top to bottom.
_DOUBLE: Mapping[str, tuple[str, ...]] = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
_SINGLE: Mapping[str, tuple[str, ...]] = {
    "linear1": ("attn.to_qkv_mlp_proj",),
    "linear2": ("attn.to_out",),
}
_OUTSIDE: Mapping[str, str] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
}
_MOST_DOUBLE, _MOST_SINGLE = 8, 24
"""Blocks of the largest klein; FLUX.1 has 19 and 38, and layers of the same names."""


def _tables() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every layer of the makers' with diffusers' in its place."""
    for number in range(_MOST_DOUBLE):
        for own, theirs in _DOUBLE.items():
            place = f"transformer_blocks.{number}"
            yield f"double_blocks.{number}.{own}", tuple(f"{place}.{one}" for one in theirs)
    for number in range(_MOST_SINGLE):
        for own, theirs in _SINGLE.items():
            place = f"single_transformer_blocks.{number}"
            yield f"single_blocks.{number}.{own}", tuple(f"{place}.{one}" for one in theirs)
    for own, one in _OUTSIDE.items():
        yield own, (one,)


PARTS: Mapping[str, tuple[str, ...]] = dict(_tables())
"""Diffusers' layers by the makers' layer that holds them."""
_WHOLE = {part: (whole, parts.index(part)) for whole, parts in PARTS.items() for part in parts}
_PREFIX = "denoiser."


def is_known(path: str) -> bool:
    """Tell whether a path is that of a layer of FLUX.2 klein, in either way to name it."""
    return path in PARTS or path in _WHOLE


def fused(changes: Changes) -> Changes:
    """Name layers as the makers do; changes of queries, keys and values become one.

    Those of low rank lose nothing: their ranks add up. Parts that are not changed are zero.
    """
    together: dict[str, dict[int, WeightChange]] = {}
    for layer, change in changes.layers.items():
        whole, index = _WHOLE[layer.removeprefix(_PREFIX)]
        together.setdefault(whole, {})[index] = change
    layers = {
        f"{_PREFIX}{whole}": _stacked(found, len(PARTS[whole])) for whole, found in together.items()
    }
    return replace(changes, layers=layers)


def split(changes: Changes) -> Changes:
    """Name layers as diffusers does; a part that is all zeros is left alone, and so left out."""
    layers: dict[str, WeightChange] = {}
    for layer, change in changes.layers.items():
        parts = PARTS.get(layer.removeprefix(_PREFIX))
        if parts is None:
            layers[layer] = change
        elif len(parts) == 1:
            layers[f"{_PREFIX}{parts[0]}"] = change
        else:
            for part, own in zip(parts, _cut(change, len(parts)), strict=True):
                if own is not None:
                    layers[f"{_PREFIX}{part}"] = own
    return replace(changes, layers=layers)


def _stacked(found: Mapping[int, WeightChange], count: int) -> WeightChange:
    """Put the parts of one layer below one another."""
    if count == 1:
        return found[0]
    parts = [found.get(index) for index in range(count)]
    if all(part is None or isinstance(part, LowRankChange) for part in parts):
        return _stacked_pairs([part for part in parts if isinstance(part, LowRankChange)], parts)
    raise AssertionError("targets that name layers so hold low-rank changes alone")


def _stacked_pairs(
    pairs: Sequence[LowRankChange], parts: Sequence[WeightChange | None]
) -> LowRankChange:
    """Put down factors below one another, and up factors on a diagonal of blocks."""
    height, dtype = len(pairs[0].up), pairs[0].up.dtype
    ups = [
        part.up if isinstance(part, LowRankChange) else torch.zeros(height, 0, dtype=dtype)
        for part in parts
    ]
    return LowRankChange(torch.cat([pair.down for pair in pairs]), torch.block_diag(*ups).to(dtype))


def _cut(change: WeightChange, count: int) -> list[WeightChange | None]:
    match change:
        case LowRankChange(down, up):
            return [_part(down, rows) for rows in up.chunk(count)]
        case Full(delta):
            return [Full(rows) if rows.any() else None for rows in delta.chunk(count)]
        case Replaced(weight):
            return [Replaced(rows) for rows in weight.chunk(count)]
        case Decomposed(inner, magnitude, 0):
            parts = zip(_cut(inner, count), magnitude.chunk(count), strict=True)
            zero = Full(torch.zeros(len(magnitude) // count, outline(inner).shape[1]))
            return [
                Decomposed(part if isinstance(part, LowRankChange | Full) else zero, own, 0)
                for part, own in parts
            ]
        case _:
            raise AdapterFileError(
                "it has DoRA's norms for each input of queries, keys and values at once, which are "
                "three layers here; expected norms for each output; export it again without DoRA"
            )


def _part(down_RI: Tensor, up_OR: Tensor) -> LowRankChange | None:
    """Keep of a product's factors what these rows need."""
    used = [index for index, column in enumerate(up_OR.T) if column.any()]
    if not used:
        return None
    return LowRankChange(down_RI[used], up_OR[:, used])
