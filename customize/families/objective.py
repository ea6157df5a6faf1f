"""Noise levels, corruption and target: what a denoiser is asked to predict.

Levels are the base's own integer timesteps 0..T-1, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e with a_t
the cumulated product of 1 - beta (Ho et al. 2020, arXiv 2006.11239, eq. 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]

LEAST_SIGNAL = 1 / 16
"""Share of clean latents' power in noisy ones below which predicted noise says little of them."""


@dataclass(frozen=True)
class Objective:
    """A diffusion base's noise schedule and what its denoiser predicts.

    `alphas_T` holds a_t for every level (float32); a_T-1 is 0 for a zero-terminal-SNR schedule.
    """

    alphas_T: Tensor
    prediction: Prediction

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Objective:
        """Read a diffusers scheduler's config, whatever sampler it is for.

        Raises ValueError for a prediction type other than epsilon and v_prediction.
        """
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction type {prediction!r}")
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        schedule = {name: config[name] for name in names if name in config}
        zero_snr = bool(config.get("rescale_betas_zero_snr", False))
        scheduler: Any = DDPMScheduler(**schedule, rescale_betas_zero_snr=zero_snr)
        return cls(alphas_T=scheduler.alphas_cumprod, prediction=prediction)

    def to(self, device: torch.device | str) -> Objective:
        """Move the schedule, so that no step copies it again."""
        return replace(self, alphas_T=self.alphas_T.to(device))

    def sample_levels(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw a level for each of the latents of `shape` (B, C, h, w): uniformly, int64 (B,)."""
        levels = len(self.alphas_T)
        return torch.randint(levels, shape[:1], generator=generator, device=generator.device)

    def corrupt(self, clean_BChw: Tensor, noise_BChw: Tensor, level_B: Tensor) -> Tensor:
        """Mix clean latents with noise at each sample's level."""
        signal_B111, noise_B111 = self._mix(clean_BChw, level_B)
        return signal_B111 * clean_BChw + noise_B111 * noise_BChw

    def target(self, clean_BChw: Tensor, noise_BChw: Tensor, level_B: Tensor) -> Tensor:
        """Give what the denoiser should answer: the noise, or v (arXiv 2202.00512, appendix D)."""
        match self.prediction:
            case "epsilon":
                return noise_BChw
            case "v_prediction":
                signal_B111, noise_B111 = self._mix(clean_BChw, level_B)
                return signal_B111 * noise_BChw - noise_B111 * clean_BChw
            case _:
                assert_never(self.prediction)

    def guess_levels(self, count: int) -> Tensor:
        """Return the noisiest level at which a prediction says what the clean latents are, (B,)."""
        match self.prediction:
            case "epsilon":
                useful = self.alphas_T >= LEAST_SIGNAL
            case "v_prediction":
                useful = torch.ones_like(self.alphas_T, dtype=torch.bool)
            case _:
                assert_never(self.prediction)
        return (useful.sum() - 1).clamp(min=0).expand(count)

    def clean(self, noisy_BChw: Tensor, predicted_BChw: Tensor, level_B: Tensor) -> Tensor:
        """Return the clean latents that a prediction stands for: `target`, solved for them."""
        signal_B111, noise_B111 = self._mix(noisy_BChw, level_B)
        match self.prediction:
            case "epsilon":
                return (noisy_BChw - noise_B111 * predicted_BChw) / signal_B111
            case "v_prediction":
                return signal_B111 * noisy_BChw - noise_B111 * predicted_BChw
            case _:
                assert_never(self.prediction)

    def min_snr_weight(self, level_B: Tensor, gamma: float) -> Tensor:
        """Weigh each sample's squared error, (B,), by min-SNR-gamma (arXiv 2303.09556, sec. 3.4).

        min(SNR, gamma) / SNR for noise and / (SNR + 1) for v; at SNR 0 these are 1 and 0.
        """
        alpha_B = self.alphas_T.to(level_B.device)[level_B]
        snr_B = alpha_B / (1 - alpha_B)
        match self.prediction:
            case "epsilon":
                return (gamma / snr_B).clamp(max=1.0)
            case "v_prediction":
                return snr_B.clamp(max=gamma) / (snr_B + 1)
            case _:
                assert_never(self.prediction)

    def _mix(self, like_BChw: Tensor, level_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of signal and noise, each (B, 1, 1, 1) in the latents' precision."""
        alpha_B111 = self.alphas_T.to(like_BChw.device)[level_B].view(-1, 1, 1, 1)
        return alpha_B111.sqrt().to(like_BChw.dtype), (1 - alpha_B111).sqrt().to(like_BChw.dtype)
