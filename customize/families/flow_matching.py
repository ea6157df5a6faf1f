"""Rectified flow: clean latents and noise mixed in a straight line, whose direction is learned.

Levels are s in (0, 1], x_s = (1 - s) x_0 + s e, and the target is the line's direction e - x_0 (Liu
et al. 2022, arXiv 2209.03003, eq. 1; Esser et al. 2024, arXiv 2403.03206, sec. 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

Levels = Literal["uniform", "shift", "logit_normal"]


@dataclass(frozen=True)
class FlowMatching:
    """How often training sees which level: `levels`, one of three ways.

    `uniform`; `shift`, uniform and then moved to more noise the larger the picture is, as a sampler
    of `steps` steps does (arXiv 2403.03206, sec. 5.3.2); `logit_normal`, the sigmoid of a normal
    number, mostly middle levels (there, eq. 19 with m = 0, s = 1).
    """

    levels: Levels = "shift"
    steps: int = 50

    def to(self, device: torch.device | str) -> FlowMatching:
        """Return it as it is: no part of it lies on a device."""
        return self

    def sample_levels(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw a level for each of the latents of `shape` (B, C, h, w), float32 (B,)."""
        kind = {"generator": generator, "device": generator.device}
        match self.levels:
            case "uniform":
                return 1 - torch.rand(shape[0], **kind)
            case "shift":
                tokens = shape[-2] * shape[-1]
                return shifted(1 - torch.rand(shape[0], **kind), tokens, self.steps)
            case "logit_normal":
                return torch.randn(shape[0], **kind).sigmoid()
            case _:
                assert_never(self.levels)

    def corrupt(self, clean_BChw: Tensor, noise_BChw: Tensor, level_B: Tensor) -> Tensor:
        """Mix clean latents with noise at each sample's level."""
        level_B111 = level_B.view(-1, 1, 1, 1).to(clean_BChw.dtype)
        return (1 - level_B111) * clean_BChw + level_B111 * noise_BChw

    def target(self, clean_BChw: Tensor, noise_BChw: Tensor, level_B: Tensor) -> Tensor:
        """Give what the denoiser should answer: from clean to noise, the same at every level."""
        assert len(level_B) == len(clean_BChw)
        return noise_BChw - clean_BChw

    def guess_levels(self, count: int) -> Tensor:
        """Return the noisiest level, 1: from noise alone the direction tells the clean latents."""
        return torch.ones(count)

    def clean(self, noisy_BChw: Tensor, predicted_BChw: Tensor, level_B: Tensor) -> Tensor:
        """Return the clean latents that a prediction stands for: `target`, solved for them."""
        return noisy_BChw - level_B.view(-1, 1, 1, 1).to(noisy_BChw.dtype) * predicted_BChw


def shifted(level_B: Tensor, tokens: int, steps: int) -> Tensor:
    """Move levels to more noise as diffusers' pipeline does for `tokens` of a picture.

    s' = e^mu / (e^mu + 1 / s - 1), with mu measured by the makers of FLUX.2.
    """
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    factor = math.exp(compute_empirical_mu(tokens, steps))
    return factor / (factor + 1 / level_B - 1)
