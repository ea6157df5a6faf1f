"""Metrics that compare pixels; the numbers are torchmetrics' own wherever it has them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from customize.scoring.items import Answer

BEST_DB = 100.0
"""PSNR of equal pictures, which is infinite; one 8-bit step in one of 512x512 pixels is 107 dB."""

SSIM_WINDOW = 11
"""Pixels across torchmetrics' Gaussian window; smaller pictures have no SSIM."""


def psnr(output: Image.Image, target: Image.Image) -> Answer:
    """Peak signal-to-noise ratio in dB, at most 100; a target of another size is scaled."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    output_BCHW, target_BCHW = unit(output), unit(scaled(target, output))
    if torch.equal(output_BCHW, target_BCHW):
        return BEST_DB
    return min(BEST_DB, float(peak_signal_noise_ratio(output_BCHW, target_BCHW, data_range=1.0)))


def ssim(output: Image.Image, target: Image.Image) -> Answer:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels, deviation 1.5."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(output.size) < SSIM_WINDOW:
        return f"pictures below {SSIM_WINDOW} pixels a side have none"
    pair = unit(output), unit(scaled(target, output))
    found = structural_similarity_index_measure(*pair, data_range=1.0)
    assert isinstance(found, Tensor)
    return float(found)


def outside_change(output: Image.Image, source: Image.Image, mask: Image.Image) -> Answer:
    """Mean absolute difference, 0 to 1, of output and source where the mask is not white."""
    change_HW = (unit(output) - unit(scaled(source, output))).abs().mean(dim=(0, 1))
    small = mask.convert("L").resize(output.size, Image.Resampling.NEAREST)
    outside_HW = torch.from_numpy(np.asarray(small) < 128)
    if not outside_HW.any():
        return "the mask is white everywhere"
    return float(change_HW[outside_HW].mean())


def unit(picture: Image.Image) -> Tensor:
    """Return a picture's pixels as (1, 3, H, W) in 0..1."""
    pixels_HWC = torch.from_numpy(np.array(picture.convert("RGB")))
    return pixels_HWC.permute(2, 0, 1)[None].float() / 255


def scaled(picture: Image.Image, like: Image.Image) -> Image.Image:
    """Return the picture in the size of the other."""
    if picture.size == like.size:
        return picture
    return picture.convert("RGB").resize(like.size, Image.Resampling.LANCZOS)
