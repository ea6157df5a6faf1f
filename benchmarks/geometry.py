"""Bases with random weights and the true geometry of the published ones, for measuring speed.

`quarter` is Stable Diffusion 1.5's UNet at 64-128-256-256 (37.5 M weights) with a VAE at
32-64-128-128, `sd15` the whole of it, `sdxl` Stable Diffusion XL's; all with 8 input channels.
Their text encoders have CLIP's true sizes; the tokenizer is the embedded base's. `klein` is the 4B
FLUX.2 klein with its Qwen3, and `small_klein` an eighth as wide (`klein_geometry`). `toy`, `toy_xl`
and `toy_klein` are the same classes at the least width, for trials of the programs that measure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from customize.families.base import EMBEDDED
from customize.families.loading.quiet import hush, quiet_loading

Geometry = Literal["quarter", "sd15", "sdxl", "klein", "small_klein", "toy", "toy_xl", "toy_klein"]
SIDES = {
    **{"quarter": 256, "sd15": 512, "sdxl": 1024, "klein": 1024, "small_klein": 256},
    **{"toy": 128, "toy_xl": 128, "toy_klein": 128},
}
WIDTHS = {
    "quarter": (64, 128, 256, 256),
    "sd15": (320, 640, 1280, 1280),
    "toy": (32, 32, 32, 32),
}
VAE_WIDTHS = {
    "quarter": (32, 64, 128, 128),
    "sd15": (128, 256, 512, 512),
    "sdxl": (128, 256, 512, 512),
    "toy": (32, 32, 32, 32),
    "toy_xl": (32, 32, 32, 32),
}
TEXT_SIZES = {"toy": (64, 2, 4), "toy_xl": (64, 2, 4)}
"""Width, layers and heads of a text encoder that is not CLIP's usual (768, 12, 12)."""
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
XL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TOY_XL_UNET = XL_UNET | {
    "block_out_channels": (32, 32, 32),
    "attention_head_dim": (2, 2, 2),
    "transformer_layers_per_block": (1, 1, 1),
    "cross_attention_dim": 2 * 64,
    "projection_class_embeddings_input_dim": 6 * 256 + 64,
}


def write_base(folder: Path, geometry: Geometry, dtype: torch.dtype = torch.float32) -> Path:
    """Write a complete base to `folder`, unless it is there; returns it.

    Its weights are drawn by the GPU where there is one: XL's 3.4 billion take a CPU minutes.
    """
    if (folder / "model_index.json").exists():
        return folder
    hush()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_loading(), device:
        pipeline = random_pipeline(geometry).to(dtype=dtype)
        pipeline.save_pretrained(folder)
    del pipeline
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return folder


def write_configs(folder: Path, geometry: Geometry) -> Path:
    """Write a base's configs and tokenizers without weights; returns `folder`."""
    hush()
    with quiet_loading(), torch.device("meta"):
        parts = random_pipeline(geometry).components
    for name, part in parts.items():
        if hasattr(part, "save_config"):  # diffusers
            part.save_config(folder / name)
        elif part is not None:
            getattr(part, "config", part).save_pretrained(folder / name)
    (folder / "model_index.json").write_text("{}")
    return folder


def unet_config(geometry: Geometry) -> dict[str, Any]:
    """Return the UNet's config."""
    shared = {"sample_size": SIDES[geometry] // 8, "in_channels": 8, "out_channels": 4}
    if geometry == "sdxl":
        return {**shared, **XL_UNET}
    if geometry == "toy_xl":
        return {**shared, **TOY_XL_UNET}
    widths = WIDTHS[geometry]
    return {
        **shared,
        "block_out_channels": widths,
        "attention_head_dim": 8,
        "cross_attention_dim": TEXT_SIZES.get(geometry, (768, 12, 12))[0],
    }


def random_pipeline(geometry: Geometry) -> Any:
    """Build a geometry's pipeline with the random weights that its classes start with."""
    import diffusers
    import transformers

    if "klein" in geometry:
        from klein_geometry import SIZES, klein_pipeline

        return klein_pipeline(SIZES[geometry])
    kinds: Any = diffusers
    tokenizer = transformers.CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    tokenizer.model_max_length = 77
    parts = {
        "vae": kinds.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=VAE_WIDTHS[geometry],
            layers_per_block=2,
            sample_size=SIDES[geometry],
            scaling_factor=0.13025 if geometry in ("sdxl", "toy_xl") else 0.18215,
        ).eval(),
        "unet": kinds.UNet2DConditionModel(**unet_config(geometry)).eval(),
        "scheduler": kinds.DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False),
        "tokenizer": tokenizer,
        "text_encoder": transformers.CLIPTextModel(
            _clip(tokenizer, *TEXT_SIZES.get(geometry, (768, 12, 12)))
        ).eval(),
    }
    if geometry in ("sdxl", "toy_xl"):
        second = _clip(tokenizer, *TEXT_SIZES.get(geometry, (1280, 32, 20)))
        parts["text_encoder_2"] = transformers.CLIPTextModelWithProjection(second).eval()
        parts["tokenizer_2"] = tokenizer
        return kinds.StableDiffusionXLInstructPix2PixPipeline(**parts)
    checker = {"safety_checker": None, "feature_extractor": None}
    return kinds.StableDiffusionInstructPix2PixPipeline(
        **parts, **checker, requires_safety_checker=False
    )


def _clip(tokenizer: Any, width: int, layers: int, heads: int) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def write_pairs(folder: Path, side: int, count: int = 4, instruction: str = "make it red") -> Path:
    """Write `count` pairs of smooth random pictures with one instruction."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random, rows = np.random.default_rng(0), list[str]()
    for number in range(count):
        row = {"source": f"{number}_s.png", "instruction": instruction}
        row["edited"] = f"{number}_t.png"
        for name in (row["source"], row["edited"]):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(folder / name)
        rows.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder
