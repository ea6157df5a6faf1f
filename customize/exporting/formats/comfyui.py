"""ComfyUI's own dotted names, `diffusion_model.<path>.lora_up.weight`, paths being the makers'.

Of Stable Diffusion they are read, never written: ComfyUI reads kohya's names as well, and so do the
others. Of FLUX.2 they are what ai-toolkit writes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from customize.exporting.changes import Changes
from customize.exporting.formats import kohya
from customize.exporting.formats.diffusers_lora import factors
from customize.exporting.formats.module_paths import split_layer, without_text_model

_MODEL = "diffusion_model."
_ENCODERS: Mapping[str, str] = {
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "clip_l.transformer.": "text_encoder",
    "clip_g.transformer.": "text_encoder_2",
}


def to_comfyui(changes: Changes) -> dict[str, Tensor]:
    """Write low-rank changes of a denoiser whose layers are named as its makers do.

    Factors have peft's names, which diffusers reads too; without alpha the scale is 1.
    """
    tensors = {}
    for layer, change in changes.layers.items():
        model, path = split_layer(layer)
        assert model == "denoiser", layer
        tensors |= {f"{_MODEL}{path}.{name}": tensor for name, tensor in factors(layer, change)}
    return tensors


def from_comfyui(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Changes:
    """Read files saved by ComfyUI's own nodes, which may mix in kohya's names.

    `metadata` says nothing that is needed. Raises AdapterFileError for other tensors.
    """
    return kohya.gather_with_words(tensors, layer_of)


def layer_of(name: str) -> str | None:
    """Read a module's name, None for one of another layout or model.

    >>> layer_of("diffusion_model.middle_block.1.proj_in")
    'denoiser.mid_block.attentions.0.proj_in'
    """
    for prefix, model in _ENCODERS.items():
        if name.startswith(prefix):
            return f"{model}.{without_text_model(name.removeprefix(prefix))}"
    if name.startswith(_MODEL):
        return kohya.denoiser_layer(name.removeprefix(_MODEL))
    return kohya.layer_of(name)
