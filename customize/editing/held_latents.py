"""Hold latents to the noised source outside of a mask, at every step of a sampler."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from customize.editing.replaced import replaced


@contextmanager
def held_outside(
    scheduler: Any, free_B1hw: Tensor, source_BChw: Tensor, noise_BChw: Tensor
) -> Iterator[None]:
    """Let steps of `scheduler` move only what is free; the rest follows the source's own noising.

    So the inside is made with its surroundings in view (blended diffusion, arXiv 2206.02779,
    algorithm 1). `source_BChw` is what the denoiser would call clean, `noise_BChw` what the sampler
    started from, `free_B1hw` is bool.
    """
    own = scheduler.step

    @functools.wraps(own)  # pipelines look at the parameters' names
    def step(prediction: Tensor, time: Any, noisy_BChw: Tensor, *rest: Any, **options: Any) -> Any:
        assert options.get("return_dict") is False, "pipelines of diffusers ask for a tuple"
        (moved_BChw, *more) = own(prediction, time, noisy_BChw, *rest, **options)
        number = int((scheduler.timesteps == time).nonzero()[0])
        if number + 1 < len(scheduler.timesteps):
            following = scheduler.timesteps[number + 1].expand(len(source_BChw))
            held_BChw = scheduler.add_noise(source_BChw, noise_BChw, following)
        else:
            held_BChw = source_BChw
        return (torch.where(free_B1hw, moved_BChw, held_BChw.to(moved_BChw.dtype)), *more)

    with replaced(scheduler, "step", step):
        yield
