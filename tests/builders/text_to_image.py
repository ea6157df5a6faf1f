"""Toy text-to-image bases with the geometry and key names of Stable Diffusion 1.5, 2.1 and XL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from builders.bases import toy_pipeline, toy_xl_pipeline
from customize.families.loading.quiet import quiet_loading
from customize.families.stable_diffusion.text_to_image import without_source

KINDS = ("1.5", "2.1", "xl")
_unet: Any = UNet2DConditionModel
_plain: Any = StableDiffusionPipeline
_xl: Any = StableDiffusionXLPipeline


def toy_drawing_base(folder: Path, kind: str = "1.5", seed: int = 0) -> Path:
    """Write a text-to-image base of 32-pixel pictures; all are sampled by Euler ancestral steps."""
    parts = (toy_xl_pipeline(seed) if kind == "xl" else toy_pipeline(seed)).components
    if kind == "2.1":
        parts["unet"] = _linear_unet(parts["unet"].config, seed)
    without_source(parts["unet"])
    _sharpen(parts["unet"])
    parts["scheduler"] = EulerAncestralDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction" if kind == "2.1" else "epsilon",
        timestep_spacing="leading",
        steps_offset=1,
    )
    if kind == "xl":
        pipeline = _xl(**{name: part for name, part in parts.items() if part is not None})
    else:
        pipeline = _plain(**parts, requires_safety_checker=False)
    with quiet_loading():
        pipeline.save_pretrained(folder)
    return folder


def _sharpen(unet: Any) -> None:
    """Let attention choose: untrained maps are flat, and sharing them would show nothing."""
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "to_q" in name:
                parameter.mul_(8)
            if "to_out" in name:
                parameter.mul_(4)


def _linear_unet(config: Any, seed: int) -> Any:
    """Build 2.1's kind of UNet: linear projections, and numbers of heads by level."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)
        return _unet(
            **{k: v for k, v in config.items() if not k.startswith("_")}
            | {"use_linear_projection": True, "attention_head_dim": (2, 4, 4)}
        ).eval()
