"""kohya's layout, `lora_unet_<path with underscores>.lora_down.weight`: the one everybody reads.

ComfyUI, A1111, Forge and InvokeAI also read a full change, `.diff`, under the same names; kohya's
own scripts ignore it and diffusers refuses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from customize.exporting.changes import Changes, Full, LowRankChange
from customize.exporting.formats import makers_names
from customize.exporting.formats.embeddings import from_bundle, is_bundled
from customize.exporting.formats.ldm_names import SD1, SDXL, from_ldm
from customize.exporting.formats.module_paths import (
    flatten,
    is_encoder,
    split_layer,
    unflatten,
    with_text_model,
    without_text_model,
)
from customize.exporting.formats.tensor_roles import gather

# What others write; `lycoris_` is LyCORIS' name for the UNet outside of kohya's scripts.
_READ: Mapping[str, str] = {
    "lora_unet_": "denoiser",
    "lycoris_": "denoiser",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
}
# The one place where diffusers knows kohya's name, which is ldm's, and not its own.
_SPELLED: Mapping[str, str] = {
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
LDM = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")


def to_kohya(changes: Changes, prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Write low-rank and full changes; `prefixes` begin the names of each model's layers.

    Scales are baked in, so alpha is the rank, which is also what its absence means everywhere. It
    is left out where ranks differ in a model: diffusers (0.42) then applies one layer's to others.
    """
    tensors = {}
    ranks = _ranks(changes)
    for layer, change in changes.layers.items():
        name = kohya_name(layer, prefixes)
        match change:
            case LowRankChange(down, up):
                tensors[f"{name}.lora_down.weight"] = down
                tensors[f"{name}.lora_up.weight"] = up
                if len(ranks[split_layer(layer)[0]]) == 1:
                    tensors[f"{name}.alpha"] = torch.tensor(float(len(down)), dtype=down.dtype)
            case Full(delta):
                tensors[f"{name}.diff"] = delta
            case _:
                raise AssertionError(f"{layer}: this layout holds no {type(change).__name__}")
    return tensors


def at_one_rank(changes: Changes) -> Changes:
    """Pad low-rank changes with zeros to the highest rank of their model.

    diffusers reads ranks that differ in a model wrongly, by up to 67 % of a layer, and says
    nothing: 0.31 to 0.36 where alpha is left out, 0.35 and later where it is there.
    """
    ranks, layers = _ranks(changes), dict(changes.layers)
    for layer, change in layers.items():
        if isinstance(change, LowRankChange):
            layers[layer] = _padded(change, max(ranks[split_layer(layer)[0]]))
    return replace(changes, layers=layers)


def from_kohya(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Changes:
    """Read this layout as any program writes it: SDXL's ldm names, LoHa, LoKr, DoRA, words too.

    `metadata` says nothing that is needed. Raises AdapterFileError for what is none of these.
    """
    return gather_with_words(tensors, layer_of)


def gather_with_words(
    tensors: Mapping[str, Tensor], layer_of: Callable[[str], str | None]
) -> Changes:
    """Read modules as `layer_of` names them, and the words that are bundled with them."""
    modules = {key: tensor for key, tensor in tensors.items() if not is_bundled(key)}
    changes = gather(modules, layer_of)
    return Changes(changes.layers, from_bundle(tensors), changes.biases)


def kohya_name(layer: str, prefixes: Mapping[str, str]) -> str:
    """Spell a layer of adapter files.

    >>> kohya_name("text_encoder.encoder.layers.0.mlp.fc1", {"text_encoder": "lora_te_"})
    'lora_te_text_model_encoder_layers_0_mlp_fc1'
    """
    model, path = split_layer(layer)
    if is_encoder(model):
        path = with_text_model(path)
    return prefixes[model] + flatten(_SPELLED.get(path, path))


def layer_of(name: str) -> str | None:
    """Read a module's name back, None for one of another layout or model.

    >>> layer_of("lora_unet_input_blocks_4_1_proj_in")
    'denoiser.down_blocks.1.attentions.0.proj_in'
    """
    for prefix, model in _READ.items():
        if name.startswith(prefix):
            path = unflatten(name.removeprefix(prefix))
            if is_encoder(model):
                return f"{model}.{without_text_model(path)}"
            return denoiser_layer(path)
    return None


def denoiser_layer(path: str) -> str | None:
    """Name a layer of a denoiser by its path in diffusers or its makers', None for another's."""
    if makers_names.is_known(path):
        return f"denoiser.{path}"
    if path.startswith(LDM):
        try:
            path = from_ldm(path, SD1, SDXL)
        except KeyError:
            return None
    known = ("down_blocks.", "mid_block.", "up_blocks.", "time_embedding.", "add_embedding.")
    if path.startswith(known) or path in ("conv_in", "conv_out", "conv_norm_out"):
        return f"denoiser.{path}"
    return None


def _padded(pair: LowRankChange, rank: int) -> LowRankChange:
    down, up, more = pair.down, pair.up, rank - len(pair.down)
    below = down.new_zeros(more, *down.shape[1:])
    beside = up.new_zeros(len(up), more, *up.shape[2:])
    return LowRankChange(torch.cat([down, below]), torch.cat([up, beside], dim=1))


def _ranks(changes: Changes) -> Mapping[str, set[int]]:
    """Return the ranks there are in each model."""
    ranks = defaultdict[str, set[int]](set)
    for layer, change in changes.layers.items():
        if isinstance(change, LowRankChange):
            ranks[split_layer(layer)[0]].add(len(change.down))
    return ranks
