"""First stage: the autoencoder, on scenes, photographs and their edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from customize.embedded.fitting.loop import Budget, fit_stage
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.models import SCALING_FACTOR, decoded, posterior_of
from customize.embedded.world.edits import DrawnEdit, random_edit
from customize.embedded.world.photos import random_crop

KL_WEIGHT = 1e-6
EDGE_WEIGHT = 0.1
LOG_VARIANCE = -20.0
"""Of every latent of the finished autoencoder: next to none."""


def to_unit(pixels_BHWC: np.ndarray) -> Tensor:
    """Turn uint8 (B, H, W, 3) into float32 (B, 3, H, W) in -1..1."""
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def pictures(seed: tuple[int, ...], count: int) -> np.ndarray:
    """Draw `count` training pictures: edited pictures and scenes, every third an untouched
    photograph.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        random_crop(rng) if index % 3 == 0 else random_edit((*seed, index)).target_HWC
        for index in range(count)
    ]
    return np.stack(drawn)


def autoencoder_loss(autoencoder: AutoencoderKL, images_BCHW: Tensor) -> Tensor:
    """Squared error of pixels and of their differences, with a faint pull to a normal latent."""
    with torch.autocast(images_BCHW.device.type, torch.bfloat16):
        posterior = posterior_of(autoencoder, images_BCHW)
        output_BCHW = decoded(autoencoder, posterior.sample())
    error = output_BCHW.float() - images_BCHW
    edges = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
    return error.square().mean() + EDGE_WEIGHT * edges + KL_WEIGHT * posterior.kl().float().mean()


def fit_autoencoder(
    autoencoder: AutoencoderKL,
    budget: Budget,
    seed: int,
    folder: Path,
    worker: Worker,
    decoder_only: bool,
) -> None:
    """Train the autoencoder and fold its latents' mean and deviation into the quant convolutions.

    `decoder_only` keeps the latents as they are, for bases whose denoiser already knows them.
    """
    if decoder_only:
        assert autoencoder.quant_conv is not None
        autoencoder.encoder.requires_grad_(False)
        autoencoder.quant_conv.requires_grad_(False)

    def loss_of(step: int, count: int) -> Tensor:
        batch = pictures((seed, 1, step, worker.rank), count)
        return autoencoder_loss(autoencoder, to_unit(batch).to(worker.device))

    fit_stage("autoencoder", autoencoder, loss_of, budget, folder, worker)
    if not decoder_only:
        fold_statistics(autoencoder, to_unit(pictures((seed, 2), 512)).to(worker.device))
    autoencoder.eval().requires_grad_(False)


@torch.no_grad()
def fold_statistics(autoencoder: AutoencoderKL, images_BCHW: Tensor) -> None:
    """Rescale the latents so that, times the scaling factor, every channel has mean 0 and deviation
    1.
    """
    means_BChw = posterior_of(autoencoder, images_BCHW).mean
    mean_C = means_BChw.mean(dim=(0, 2, 3))
    gain_C = 1 / (SCALING_FACTOR * means_BChw.std(dim=(0, 2, 3)))
    quant, post = autoencoder.quant_conv, autoencoder.post_quant_conv
    assert quant is not None
    assert post is not None
    assert quant.bias is not None
    assert post.bias is not None
    channels = len(mean_C)
    post.bias += post.weight[..., 0, 0] @ mean_C
    post.weight /= gain_C[None, :, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean_C) * gain_C
    quant.weight[:channels] *= gain_C[:, None, None, None]
    # The other half holds log-variances. The denoiser learns from modes, so sampling must give them
    # too: a channel that the pull to a normal latent emptied would otherwise drown them in noise.
    quant.weight[channels:] = 0
    quant.bias[channels:] = LOG_VARIANCE


def stacked(edits: Sequence[DrawnEdit]) -> tuple[Tensor, Tensor]:
    """Stack the sources and the targets of edits, each (B, 3, H, W) in -1..1."""
    sources = to_unit(np.stack([edit.source_HWC for edit in edits]))
    return sources, to_unit(np.stack([edit.target_HWC for edit in edits]))
