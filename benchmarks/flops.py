"""Model FLOPs of a training step, and what a device could do in its time: the utilization.

A sample's products are counted forward, and as many again for the gradients of activations: frozen
weights need none of their own, and what learns is too small to count. What is computed twice
(gradient checkpointing) counts once, as in PaLM (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from geometry import SIDES, Geometry, unet_config
from klein_geometry import SIZES, klein_transformer
from torch.utils.flop_counter import FlopCounterMode

from customize.families.flux2.packing import picture_places, text_places, tokens

KLEIN_TEXT = 512
"""Tokens of an instruction, padding included."""


def unet_flops(geometry: Geometry) -> float:
    """Count a sample of an InstructPix2Pix UNet at the geometry's own size."""
    from diffusers import UNet2DConditionModel

    side, config = SIDES[geometry] // 8, unet_config(geometry)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**config)
        text = torch.empty(1, 77, config["cross_attention_dim"])
        inputs = torch.empty(1, 8, side, side), torch.zeros(1), text
    with FlopCounterMode(display=False) as counter:
        unet(*inputs)
    return 2.0 * counter.get_total_flops()


def klein_flops(geometry: Geometry, side: int) -> float:
    """Count a sample of FLUX.2 klein: picture, one source and text at `side` x `side` pixels."""
    with torch.device("meta"):
        transformer = klein_transformer(SIZES[geometry])
        picture_BChw = torch.empty(1, transformer.config.in_channels, side // 16, side // 16)
        text_BLD = torch.empty(1, KLEIN_TEXT, transformer.config.joint_attention_dim)
        inputs = {
            "hidden_states": tokens([picture_BChw, picture_BChw]),
            "encoder_hidden_states": text_BLD,
            "timestep": torch.zeros(1),
            "img_ids": picture_places([picture_BChw, picture_BChw]),
            "txt_ids": text_places(text_BLD),
        }
    with FlopCounterMode(display=False) as counter:
        transformer(**inputs)
    return 2.0 * counter.get_total_flops()


def matrix_rate(device: str, kind: torch.dtype, size: int) -> float:
    """Measure how many floating-point operations a second products of `size` x `size` get."""
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    return 2 * size**3 / min(_product_seconds(left, right) for _ in range(7))


def _product_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.matmul(left, right)
    if left.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
