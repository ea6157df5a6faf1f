"""An autoencoder of FLUX.2's class that is exact on mosaics of 8-pixel tiles, set by hand.

Its four latent channels are red, green and blue of each tile, and their mean. So a toy base's edits
can be looked at without an autoencoder being fitted first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDTH, TILE = 16, 8
_LARGE = 100.0
"""Beside it a group's normalization hardly depends on its values (-1 to 1): by 1e-4 at most."""


@torch.no_grad()
def exact_autoencoder() -> Any:
    """Build it: every block passes on what it gets, samplers average or repeat.

    Channels stand in groups of four, (v, -v, LARGE, -LARGE), of which a group's normalization makes
    v again up to a factor; silu(v) - silu(-v) is v.
    """
    from diffusers import AutoencoderKLFlux2

    kind: Any = AutoencoderKLFlux2
    vae = kind(
        block_out_channels=(WIDTH,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    for parameter in vae.parameters():
        parameter.zero_()
    for name, module in vae.named_modules():
        if name.endswith("downsamplers.0.conv"):
            module.weight[:, :, :2, :2] = torch.eye(WIDTH)[:, :, None, None] / 4
        elif name.endswith("upsamplers.0.conv"):
            module.weight[:, :, 1, 1] = torch.eye(WIDTH)
        elif name.endswith("quant_conv"):
            module.weight[:, :, 0, 0] = torch.eye(len(module.weight))
        elif name.endswith("conv_norm_out"):
            module.weight.fill_(_LARGE / 2**0.5)
    rgb_and_mean = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)])
    _spread(vae.encoder.conv_in, rgb_and_mean)
    _gather(vae.encoder.conv_out, 4)
    _spread(vae.decoder.conv_in, torch.eye(4))
    _gather(vae.decoder.conv_out, 3)
    vae.bn.running_mean.zero_()
    vae.bn.running_var.fill_(0.25 - vae.config.batch_norm_eps)  # so that latents are doubled
    return vae.eval()


def _spread(conv: nn.Conv2d, mixed: Tensor) -> None:
    """Let a convolution write the four channels `mixed` (4, inputs) as groups."""
    assert conv.bias is not None
    conv.weight[0::4, :, 1, 1] = mixed
    conv.weight[1::4, :, 1, 1] = -mixed
    conv.bias[2::4], conv.bias[3::4] = _LARGE, -_LARGE


def _gather(conv: nn.Conv2d, count: int) -> None:
    """Let a convolution read the first `count` groups."""
    for channel in range(count):
        conv.weight[channel, 4 * channel, 1, 1] = 1.0
        conv.weight[channel, 4 * channel + 1, 1, 1] = -1.0
