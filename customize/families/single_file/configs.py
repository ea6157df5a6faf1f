"""The configs that a single-file checkpoint lacks, read from the shapes of its tensors.

What shapes cannot tell (how many heads, groups and which activation) is as published for Stable
Diffusion 1 and SDXL; a folder of configs beside the file says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from customize.files.parse import parse_json
from customize.files.text import MOST_BYTES

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
FIRST_TEXT = {
    False: "cond_stage_model.transformer.text_model.",
    True: "conditioner.embedders.0.transformer.text_model.",
}
SECOND_TEXT = "conditioner.embedders.1.model."
_HEADS, _HEAD_WIDTH = 8, 64


def is_xl(shapes: Shapes) -> bool:
    """Tell SDXL's layout, with two text encoders, from Stable Diffusion 1's."""
    return f"{SECOND_TEXT}text_projection" in shapes


def unet_config(shapes: Shapes) -> Config:
    """Read the UNet's levels, depths and widths."""
    own = {n.removeprefix(UNET): shape for n, shape in shapes.items() if n.startswith(UNET)}
    downs = _numbers(own, r"input_blocks\.(\d+)\.0\.op\.weight")
    layers = (downs[0] if downs else max(_numbers(own, r"input_blocks\.(\d+)\..*"))) - 1
    firsts = [1 + level * (layers + 1) for level in range(len(downs) + 1)]
    widths = [own[f"input_blocks.{first}.0.out_layers.3.weight"][0] for first in firsts]
    depths = [_count(own, rf"input_blocks\.{n}\.1\.transformer_blocks\.(\d+)\..*") for n in firsts]
    middle = _count(own, r"middle_block\.1\.transformer_blocks\.(\d+)\..*")
    width = own["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
    linear = len(own["middle_block.1.proj_in.weight"]) == 2
    return {
        "sample_size": 128 if is_xl(shapes) else 64,
        "in_channels": own["input_blocks.0.0.weight"][1],
        "out_channels": own["out.2.weight"][0],
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in depths[::-1]],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "cross_attention_dim": width,
        "transformer_layers_per_block": [*(d or 1 for d in depths[:-1]), depths[-1] or middle],
        "use_linear_projection": linear,
        "attention_head_dim": [w // _HEAD_WIDTH for w in widths] if linear else _HEADS,
        **(_added(own, shapes) if is_xl(shapes) else {}),
    }


def _added(own: Shapes, shapes: Shapes) -> Config:
    """Read what SDXL's UNet is told beside the text: six numbers and the pooled text."""
    added = own["label_emb.0.0.weight"][1]
    pooled = shapes[f"{SECOND_TEXT}text_projection"][1]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (added - pooled) // 6,
        "projection_class_embeddings_input_dim": added,
    }


def vae_config(shapes: Shapes) -> Config:
    """Read the autoencoder's levels and widths."""
    own = {n.removeprefix(VAE): shape for n, shape in shapes.items() if n.startswith(VAE)}
    levels = range(_count(own, r"encoder\.down\.(\d+)\..*"))
    xl = is_xl(shapes)
    return {
        "down_block_types": ["DownEncoderBlock2D" for _ in levels],
        "up_block_types": ["UpDecoderBlock2D" for _ in levels],
        "block_out_channels": [own[f"encoder.down.{n}.block.0.conv1.weight"][0] for n in levels],
        "layers_per_block": _count(own, r"encoder\.down\.0\.block\.(\d+)\..*"),
        "latent_channels": own["decoder.conv_in.weight"][1],
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in own,
        "use_quant_conv": "quant_conv.weight" in own,
        "use_post_quant_conv": "post_quant_conv.weight" in own,
        "sample_size": 1024 if xl else 512,
        "scaling_factor": 0.13025 if xl else 0.18215,
        "force_upcast": True,
    }


def first_text_config(shapes: Shapes) -> Config:
    """Read the sizes of CLIP's text model in OpenAI's layout."""
    start = FIRST_TEXT[is_xl(shapes)]
    rows, width = shapes[f"{start}embeddings.token_embedding.weight"]
    return _text_config(
        rows=rows,
        width=width,
        positions=shapes[f"{start}embeddings.position_embedding.weight"][0],
        layers=_count(shapes, re.escape(start) + r"encoder\.layers\.(\d+)\..*"),
        inner=shapes[f"{start}encoder.layers.0.mlp.fc1.weight"][0],
        projection=width,
        activation="quick_gelu",
    )


def second_text_config(shapes: Shapes) -> Config:
    """Read the sizes of CLIP's text model in OpenCLIP's layout."""
    rows, width = shapes[f"{SECOND_TEXT}token_embedding.weight"]
    return _text_config(
        rows=rows,
        width=width,
        positions=shapes[f"{SECOND_TEXT}positional_embedding"][0],
        layers=_count(shapes, re.escape(SECOND_TEXT) + r"transformer\.resblocks\.(\d+)\..*"),
        inner=shapes[f"{SECOND_TEXT}transformer.resblocks.0.mlp.c_fc.weight"][0],
        projection=shapes[f"{SECOND_TEXT}text_projection"][1],
        activation="gelu",
    )


def scheduler_config(shapes: Shapes, metadata: Mapping[str, str]) -> Config:
    """Give the published noise levels, and what keys and metadata say of the prediction.

    `v_pred` and `ztsnr` are the marks that ComfyUI and A1111 read; `customize.scheduler` is what
    our own exporter writes. Raises ValueError where that is damaged.
    """
    if own := metadata.get("customize.scheduler"):
        config = parse_json(own, MOST_BYTES)
        if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
            raise ValueError("it names no scheduler")
        return config
    says_v = metadata.get("modelspec.prediction_type", "").startswith("v")
    config: Config = {
        "_class_name": "EulerDiscreteScheduler"
        if is_xl(shapes)
        else "EulerAncestralDiscreteScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction" if says_v or "v_pred" in shapes else "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading" if is_xl(shapes) else "linspace",
    }
    if "ztsnr" in shapes:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def _text_config(
    *,
    rows: int,
    width: int,
    positions: int,
    layers: int,
    inner: int,
    projection: int,
    activation: str,
) -> Config:
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": inner,
        "projection_dim": projection,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "max_position_embeddings": positions,
        "hidden_act": activation,
        "bos_token_id": rows - 2,
        "eos_token_id": rows - 1,
        "pad_token_id": rows - 1,
    }


def _numbers(shapes: Shapes, pattern: str) -> list[int]:
    """List, in order, the different numbers that `pattern` finds in the names."""
    found = (re.fullmatch(pattern, name) for name in shapes)
    return sorted({int(match[1]) for match in found if match})


def _count(shapes: Shapes, pattern: str) -> int:
    return len(_numbers(shapes, pattern))
