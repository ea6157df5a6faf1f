"""Open text-to-image models: Stable Diffusion 1, 2, XL, and the twin of a base that has one.

An editing base that also learned captions without a source is a text-to-image model as soon as its
denoiser loses the input channels of the source picture: they were fed zeros then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from customize.errors import BaseModelError
from customize.families.base import Base, WeightPrecision, resolve_base, resolve_plain
from customize.families.loading.parts import load_part, load_pipeline
from customize.families.loading.quiet import hush
from customize.files.parse import load_json

KEY = "text_to_image"
"""What `customize.json` of an editing base fitted from captions holds: its twin's settings."""


@dataclass(frozen=True)
class Drawing:
    """How a text-to-image model is sampled where nothing else is asked for."""

    steps: int
    guidance: tuple[float, float]


PAPER = Drawing(steps=100, guidance=(7.5, 15.0))
"""Stable Diffusion 1.5 as InstructPix2Pix drew triplets with it (Brooks et al. 2023, 3.1.2)."""


def resolve_text_to_image(
    name: str, revision: str | None = None, precision: WeightPrecision = "auto"
) -> tuple[Base, Drawing]:
    """Find a text-to-image model, or an editing base that has a twin; raises BaseModelError."""
    folder = Path(name).expanduser()
    if name == "embedded" or (folder / "customize.json").is_file():
        base = resolve_base(name, revision, precision)
        return base, _twin_of(base)
    return replace(resolve_plain(name, revision), precision=precision), PAPER


def open_text_to_image(
    base: Base, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Any:
    """Open diffusers' StableDiffusionPipeline, or its XL kind, of a base resolved above."""
    hush()
    from diffusers import (
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    unet = load_part(UNet2DConditionModel, base, "unet", device, dtype or base.dtype(device))
    if unet.config["in_channels"] == 2 * unet.config["out_channels"]:
        without_source(unet)
    if base.family == "instruct_pix2pix_xl":
        return load_pipeline(
            StableDiffusionXLPipeline, base, device, dtype, unet=unet, add_watermarker=False
        )
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return load_pipeline(StableDiffusionPipeline, base, device, dtype, unet=unet, **unused)


def without_source(unet: Any) -> None:
    """Take the source picture's input channels away from an editing base's UNet.

    It answers as before with a source of zeros.
    """
    latents, wide = unet.config["out_channels"], unet.conv_in
    first = nn.Conv2d(latents, wide.out_channels, wide.kernel_size, padding=wide.padding)
    with torch.no_grad():
        first.weight.copy_(wide.weight[:, :latents])
        assert first.bias is not None
        first.bias.copy_(wide.bias)
    unet.conv_in = first.to(wide.weight).requires_grad_(False)
    unet.register_to_config(in_channels=latents)


def _twin_of(base: Base) -> Drawing:
    """Read how the twin of an editing base is sampled; raises BaseModelError where it has none."""
    path = base.folder / "customize.json"
    try:
        written = load_json(path).get(KEY)
        if written is None:
            raise BaseModelError(
                f"base {base.name!r}: these weights edit pictures and were not fitted from "
                "captions alone, so they draw none from a text; expected a text-to-image model",
                "name one, such as stable-diffusion-v1-5/stable-diffusion-v1-5",
            )
        low, high = written["guidance"]
        return Drawing(int(written["steps"]), (float(low), float(high)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({type(error).__name__}: {error}); expected "
            f"{KEY}.steps and {KEY}.guidance: [low, high]",
            "remove it or write it anew",
        ) from None
