"""First stage: the autoencoder, on scenes, photographs and their edits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from customize.embedded.fitting.drawing_ahead import DrawnAhead
from customize.embedded.fitting.loop import Budget, autocast, fit_stage
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.models import SCALING_FACTOR, decoded, posterior_of, size_of
from customize.embedded.world.edits import DrawnEdit, random_edit
from customize.embedded.world.photos import random_crop

KL_WEIGHT = 1e-8
"""On the summed divergence; a hundred times more emptied one of four channels."""
EDGE_WEIGHT = 0.1
INTRODUCTION = 150
"""Steps in which a new outer level gets to know the latents of an older autoencoder."""
KNOWN_WEIGHT = 0.02
"""On the squared distance to the latents of an older autoencoder, whose deviation is 1."""
FOLDED_OVER = 512
"""Pictures over whose latents mean and deviation are taken."""
LOG_VARIANCE = -20.0
"""Of every latent of the finished autoencoder: next to none."""


def to_unit(pixels_BHWC: np.ndarray | Tensor) -> Tensor:
    """Turn uint8 (B, H, W, 3) into float32 (B, 3, H, W) in -1..1."""
    return torch.as_tensor(pixels_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def pictures(seed: tuple[int, ...], count: int, size: int) -> np.ndarray:
    """Draw `count` training pictures: edited pictures and scenes, every third an untouched
    photograph.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        random_crop(rng, size=size)
        if index % 3 == 0
        else random_edit((*seed, index), size=size).target_HWC
        for index in range(count)
    ]
    return np.stack(drawn)


def _batch(seed: tuple[int, ...], rank: int, count: int, size: int, step: int) -> Tensor:
    """Draw the batch of a step, as processes are asked to."""
    return torch.from_numpy(pictures((*seed, step, rank), count, size))


@dataclass(frozen=True)
class KnownLatents:
    """The latents of an older autoencoder, of pictures as large or half as large, which a denoiser
    already knows.

    Latents of the same kind let that denoiser go on where it was. `live_C` leaves channels out that
    carry nothing.
    """

    autoencoder: AutoencoderKL
    live_C: Tensor

    @classmethod
    def open(cls, autoencoder: AutoencoderKL, images_BCHW: Tensor) -> KnownLatents:
        """Take an older autoencoder; channels worth less than 0.2 dB on the pictures are dead."""
        worth = channels_worth(autoencoder, _pictures_for(autoencoder, images_BCHW))
        return cls(autoencoder, torch.tensor([w >= 0.2 for w in worth]).to(images_BCHW.device))

    @torch.no_grad()
    def of(self, images_BCHW: Tensor) -> Tensor:
        """Encode pictures of the new size by the older autoencoder, to (B, C, h, w)."""
        images_BCHW = _pictures_for(self.autoencoder, images_BCHW)
        return posterior_of(self.autoencoder, images_BCHW).mode()

    def distance(self, latents_BChw: Tensor, known_BChw: Tensor) -> Tensor:
        """Mean squared distance over the live channels, in deviations of the older latents."""
        apart = (latents_BChw - known_BChw)[:, self.live_C].float() * SCALING_FACTOR
        return apart.square().mean()


def _pictures_for(autoencoder: AutoencoderKL, images_BCHW: Tensor) -> Tensor:
    return F.avg_pool2d(images_BCHW, images_BCHW.shape[-1] // size_of(autoencoder))


def autoencoder_loss(
    autoencoder: AutoencoderKL,
    images_BCHW: Tensor,
    known: KnownLatents | None = None,
    introducing: bool = False,
) -> Tensor:
    """Squared error of pixels and of their differences, with a faint pull to a normal latent and,
    where there are any, to `known` latents.

    While `introducing` them, encoder and decoder learn apart: one to give them, one to read them.
    """
    pull = torch.zeros((), device=images_BCHW.device)
    with autocast(images_BCHW.device):
        posterior = posterior_of(autoencoder, images_BCHW)
        latents_BChw = posterior.sample()
        if known is not None:
            known_BChw = known.of(images_BCHW)
            weight = 1.0 if introducing else KNOWN_WEIGHT
            pull = weight * known.distance(posterior.mean, known_BChw)
            latents_BChw = known_BChw if introducing else latents_BChw
        output_BCHW = decoded(autoencoder, latents_BChw)
    error = output_BCHW.float() - images_BCHW
    edges = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
    normal = KL_WEIGHT * posterior.kl().float().mean()
    return error.square().mean() + EDGE_WEIGHT * edges + normal + pull


def fit_autoencoder(
    autoencoder: AutoencoderKL,
    budget: Budget,
    seed: int,
    folder: Path,
    worker: Worker,
    decoder_only: bool,
    older: AutoencoderKL | None = None,
    drawers: int = 0,
) -> None:
    """Train the autoencoder and fold its latents' mean and deviation into the quant convolutions.

    `decoder_only` keeps the latents as they are, for bases whose denoiser already knows them; with
    an `older` autoencoder they become much like its own, and channels that carried nothing there
    are used.
    """
    size = size_of(autoencoder)
    if decoder_only:
        assert autoencoder.quant_conv is not None
        autoencoder.encoder.requires_grad_(False)
        autoencoder.quant_conv.requires_grad_(False)
    known = None
    if older is not None:
        some = to_unit(pictures((seed, 2), 64, size)).to(worker.device)
        known = KnownLatents.open(older.requires_grad_(False), some)
        copy_levels(autoencoder, older, known.live_C)
    introduction = INTRODUCTION if known and size_of(known.autoencoder) != size else 0

    count = budget.batch // worker.count
    drawn = DrawnAhead(partial(_batch, (seed, 1), worker.rank, count, size), drawers)

    def loss_of(step: int, _: int) -> Tensor:
        images_BCHW = to_unit(drawn(step).to(worker.device))
        return autoencoder_loss(autoencoder, images_BCHW, known, step < introduction)

    fit_stage("autoencoder", autoencoder, loss_of, budget, folder, worker)
    drawn.close()
    if not decoder_only:
        some = to_unit(pictures((seed, 2), FOLDED_OVER, size)).to(worker.device)
        fold_statistics(autoencoder, some)
    autoencoder.eval().requires_grad_(False)


@torch.no_grad()
def copy_levels(autoencoder: AutoencoderKL, older: AutoencoderKL, live_C: Tensor) -> None:
    """Start from an older autoencoder: where it has a level less, its levels are the inner ones.

    Latent channels that are dead there start anew. A new level of the decoder only enlarges at
    first.
    """
    more = len(autoencoder.config["block_out_channels"]) - len(older.config["block_out_channels"])
    own, again = autoencoder.state_dict(), live_C.logical_not().tolist()
    for name, weight in older.state_dict().items():
        inner = re.sub(r"(?<=down_blocks\.)\d+", lambda number: str(int(number[0]) + more), name)
        if more and name.startswith("encoder.conv_in."):
            continue
        for axis in _LATENT_AXES.get(name.rpartition(".")[0], ()):
            if axis < weight.dim():
                channels = torch.tensor(again * (weight.shape[axis] // len(again)))
                rows = channels.nonzero()[:, 0].to(weight.device)
                weight = weight.index_copy(axis, rows, own[inner].index_select(axis, rows))
        own[inner].copy_(weight)
    if not more:
        return
    *_, last_inner, outer = cast(Any, autoencoder.decoder.up_blocks)
    nn.init.dirac_(last_inner.upsamplers[0].conv.weight)
    nn.init.zeros_(last_inner.upsamplers[0].conv.bias)
    for block in outer.resnets:
        nn.init.zeros_(block.conv2.weight)
        nn.init.zeros_(block.conv2.bias)


_LATENT_AXES = {
    "encoder.conv_out": (0,),
    "quant_conv": (0, 1),
    "post_quant_conv": (0, 1),
    "decoder.conv_in": (1,),
}
"""Layers that a latent channel goes through, and the axes of their weights that count channels."""


@torch.no_grad()
def channels_worth(autoencoder: AutoencoderKL, images_BCHW: Tensor) -> list[float]:
    """Tell how much each latent channel is worth: the PSNR lost (dB) without what it varies."""
    modes_BChw = posterior_of(autoencoder, images_BCHW).mode()
    mean_1C11 = modes_BChw.mean(dim=(0, 2, 3), keepdim=True)

    def quality(latents_BChw: Tensor) -> float:
        error = decoded(autoencoder, latents_BChw).clamp(-1, 1) - images_BCHW
        return float(-10 * error.square().mean().log10())

    whole, channels = quality(modes_BChw), torch.arange(modes_BChw.shape[1])
    channels = channels.to(modes_BChw.device)
    return [
        whole - quality(torch.where((channels == c)[:, None, None], mean_1C11, modes_BChw))
        for c in channels
    ]


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


def stacked_pictures(edits: Sequence[DrawnEdit]) -> tuple[Tensor, Tensor]:
    """Stack the sources and the targets of edits, each (B, 3, H, W) in -1..1."""
    sources = to_unit(np.stack([edit.source_HWC for edit in edits]))
    return sources, to_unit(np.stack([edit.target_HWC for edit in edits]))
