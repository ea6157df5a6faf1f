"""From edit to edit without decoding between, and what an edit left alone stays exactly as it was.

An autoencoder loses a little at every turn, and an editing base redraws a little of what nobody
asked for: five edits that should change nothing cost 8 dB of the first picture's likeness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor

from customize.editing.replaced import replaced

MOVED = 0.25
"""Latent cells that moved by less, in deviations of latents (root mean square over channels), were
left alone; cells beside one that was not count as edited too.
"""


@dataclass
class Carried:
    """One picture on its way through a chain of edits: its latents, once there are any."""

    latents_Chw: Tensor | None = None


def with_cells_kept(before_BChw: Tensor, after_BChw: Tensor, deviation: float) -> Tensor:
    """Put the cells of `before` back that an edit moved by less than `MOVED` deviations.

    >>> before, after = torch.zeros(1, 4, 3, 9), torch.full((1, 4, 3, 9), 0.1)
    >>> after[..., 0] = 1
    >>> with_cells_kept(before, after, deviation=1)[0, 0, 0, :4]
    tensor([1.0000, 0.1000, 0.0000, 0.0000])
    """
    moved_Bhw = (after_BChw - before_BChw).float().square().mean(dim=1).sqrt() / deviation
    edited_Bhw = F.max_pool2d((moved_Bhw >= MOVED).float(), 3, stride=1, padding=1) > 0
    return torch.where(edited_Bhw[:, None], after_BChw, before_BChw.to(after_BChw))


@contextmanager
def carrying(vae: Any, pictures: Sequence[Carried | None]) -> Iterator[None]:
    """Let one call of a pipeline read `pictures`' latents and leave its answers' there.

    A picture without latents is encoded; None is left as it is, on both ways.
    """
    if all(one is None for one in pictures):
        yield
        return
    own_encode, own_decode = vae.encode, vae.decode
    sources: list[Tensor] = []

    def encode(pixels_BCHW: Tensor, *rest: Any, **options: Any) -> AutoencoderKLOutput:
        latents_BChw: Tensor = own_encode(pixels_BCHW, *rest, **options).latent_dist.mode()
        kept = [
            own_Chw if one is None or one.latents_Chw is None else one.latents_Chw.to(own_Chw)
            for own_Chw, one in zip(latents_BChw, pictures, strict=True)
        ]
        sources[:] = kept
        certain_BChw = torch.stack(kept)
        parameters = torch.cat((certain_BChw, torch.full_like(certain_BChw, -30)), dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(parameters))

    def decode(latents_BChw: Tensor, *rest: Any, **options: Any) -> Any:
        kept_BChw = with_cells_kept(torch.stack(sources), latents_BChw, _deviation(vae))
        rows = list(latents_BChw)
        for number, one in enumerate(pictures):
            if one is not None:
                rows[number] = one.latents_Chw = kept_BChw[number]
        return own_decode(torch.stack(rows), *rest, **options)

    with replaced(vae, "encode", encode), replaced(vae, "decode", decode):
        yield


def _deviation(vae: Any) -> float:
    """Return how far latents usually stray: 1 over their scale, or as the autoencoder counted."""
    if "scaling_factor" in vae.config:
        return 1 / vae.config.scaling_factor
    return float(vae.bn.running_var.mean().sqrt())
