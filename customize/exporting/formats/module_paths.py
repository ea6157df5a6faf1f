"""Module paths as files spell them: flattened by underscores, with a prefix for each model.

Flattening loses which underscores were dots; `WORDS`, all path words that hold an underscore
themselves, is what brings them back without asking a model.
"""

from __future__ import annotations

import re

WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks"),
    *("to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out"),
    *("conv_in", "conv_out", "conv_norm_out", "conv_shortcut", "time_emb_proj"),
    *("time_embedding", "add_embedding", "linear_1", "linear_2"),
    # FLUX.2, by diffusers and by its makers
    *("single_transformer_blocks", "to_qkv_mlp_proj", "to_add_out", "ff_context"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "linear_in", "linear_out"),
    *("double_blocks", "single_blocks", "img_attn", "txt_attn", "img_mlp", "txt_mlp"),
    *("img_in", "txt_in", "time_in", "in_layer", "out_layer", "final_layer"),
    *("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"),
    # CLIP text models
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
    *("layer_norm1", "layer_norm2", "final_layer_norm", "token_embedding", "position_embedding"),
    # the original Stable Diffusion's UNet
    *("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb"),
    *("in_layers", "out_layers", "emb_layers", "skip_connection"),
)
_WORD = re.compile(
    "|".join(f"{word}(?=_|$)" for word in sorted(WORDS, key=len, reverse=True)) + "|[^_]+"
)

ROOT = "base_model.model."
# Layers of a CLIP text model that stand beside `text_model`, not in it.
_BESIDE = ("text_projection",)


def flatten(path: str) -> str:
    """Write a module path with underscores.

    >>> flatten("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0")
    'mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0'
    """
    return path.replace(".", "_")


def unflatten(name: str) -> str:
    """Bring the dots of a flattened module path back.

    >>> unflatten("mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0")
    'mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0'
    """
    return ".".join(_WORD.findall(name))


def with_text_model(path: str) -> str:
    """Put back the level that adapter files leave out of a text encoder's paths.

    >>> with_text_model("encoder.layers.0.self_attn.q_proj")
    'text_model.encoder.layers.0.self_attn.q_proj'
    """
    return path if path.startswith(_BESIDE) else f"text_model.{path}"


def without_text_model(path: str) -> str:
    """Leave that level out, where it is there."""
    return path.removeprefix("text_model.")


def without_root(name: str) -> str:
    """Leave out what peft puts before a module's name when it wraps a model.

    >>> without_root("base_model.model.conv_in")
    'conv_in'
    """
    while name.startswith(ROOT):
        name = name.removeprefix(ROOT)
    return name


def split_layer(layer: str) -> tuple[str, str]:
    """Split a layer's name in adapter files into its model and its path.

    >>> split_layer("denoiser.conv_in")
    ('denoiser', 'conv_in')
    """
    model, _, path = layer.partition(".")
    return model, path


def is_encoder(model: str) -> bool:
    """Tell whether a layer's model is a text encoder."""
    return re.fullmatch(r"text_encoder(_\d)?", model) is not None
