"""Sample edits of one size with a say in every step: noise, masks, tiles and savings.

The pipeline stays diffusers' own, called by `sample`; what differs is put around its denoiser's and
its scheduler's calls for as long as it runs. Without any of it the answers are the pipeline's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from customize.editing.carried_latents import Carried
from customize.editing.denoiser_calls import Layer, answered_by, without_branches
from customize.editing.held_latents import held_outside
from customize.editing.masks import latent_mask
from customize.editing.remembered import remembering
from customize.editing.sample import Request, sample
from customize.editing.shared_noise import noise_field
from customize.editing.step_savings import GuidanceKept, deep_features_kept
from customize.editing.tiles import in_tiles
from customize.errors import EditError
from customize.families import denoiser_of, family_of_pipeline, profile_of
from customize.families.sampling_defaults import Sampling

if TYPE_CHECKING:
    from customize.editing.edited_picture import Settings


LARGE = 2**30
"""Parameters of a text encoder above which its answers are too large to keep."""


@dataclass(frozen=True)
class Work:
    """One edit at the working size: the source, RGB, and where it may change (grey, None: all).

    `carried` has the source's latents and gets the answer's, see `carried_latents`.
    """

    source: Image.Image
    instruction: str
    seed: int
    mask: Image.Image | None = None
    carried: Carried | None = None


@torch.no_grad()
def sample_controlled(
    pipeline: Any,
    works: Sequence[Work],
    settings: Settings,
    *,
    tile: int,
    watch: Layer | None = None,
) -> list[np.ndarray]:
    """Make edits of one size together, as `settings` say; (H, W, 3) float in 0..1 each.

    `tile` is the side of a tile in pixels. `watch` is a layer that sees every call of the denoiser
    first. Pixels may be no numbers. Out of memory, halves are tried; raises EditError where one
    alone does not fit.
    """
    try:
        return _sampled(pipeline, works, settings, tile, watch)
    except torch.OutOfMemoryError:
        if len(works) == 1 or watch is not None:
            raise EditError(
                f"out of memory at {settings.width}x{settings.height} pixels; expected to fit; "
                "lower the resolution, or open the base in bfloat16"
            ) from None
    half = len(works) // 2
    return [
        answer_HWC
        for part in (works[:half], works[half:])
        for answer_HWC in sample_controlled(pipeline, part, settings, tile=tile)
    ]


def _sampled(
    pipeline: Any, works: Sequence[Work], settings: Settings, tile: int, watch: Layer | None
) -> list[np.ndarray]:
    sampling = Sampling(settings.steps, settings.text_guidance, settings.image_guidance)
    noises_Chw = [_noise(pipeline, work, settings) for work in works]
    requests = [
        Request(
            work.source,
            work.instruction,
            work.seed,
            noise_Chw=noise_Chw if settings.noise == "field" else None,
            carried=work.carried,
        )
        for work, noise_Chw in zip(works, noises_Chw, strict=True)
    ]
    with ExitStack() as stack:
        if settings.fast and not settings.tiles:
            steps = deep_features_kept(denoiser_of(pipeline), settings.steps)
            stack.enter_context(steps)
        if layers := list(_layers(pipeline, settings, tile, len(works), watch)):
            stack.enter_context(answered_by(denoiser_of(pipeline), *layers))
        if any(work.mask is not None for work in works):
            stack.enter_context(_held(pipeline, works, torch.stack(noises_Chw)))
        return sample(pipeline, requests, sampling, at_once=len(works))


def _layers(
    pipeline: Any, settings: Settings, tile: int, count: int, watch: Layer | None
) -> Iterator[Layer]:
    """Yield what goes around the denoiser, the outermost first."""
    if watch is not None:
        yield watch
    if settings.fast and settings.text_guidance > 1:
        yield GuidanceKept(settings.steps)
    left_out = None
    if profile_of(family_of_pipeline(pipeline)).guides_by_source:
        left_out = without_branches(settings.text_guidance, settings.image_guidance)
    if left_out is not None and not settings.fast:
        yield left_out
    if settings.tiles:
        yield in_tiles(tile // pipeline.vae_scale_factor, max(1, count))


def _noise(pipeline: Any, work: Work, settings: Settings) -> Tensor:
    """Return the noise an edit starts from: its field's, or what the pipeline itself would draw."""
    denoiser = denoiser_of(pipeline)
    dtype, channels = denoiser.dtype, denoiser.config.out_channels or denoiser.config.in_channels
    factor = pipeline.image_processor.config.vae_scale_factor  # patches count, where there are some
    sides = [side // factor for side in (settings.height, settings.width)]
    if settings.noise == "field":
        return noise_field(work.seed, channels, *sides).to(pipeline.device, dtype)
    generator = torch.Generator().manual_seed(work.seed)
    noise_BChw = torch.randn((1, channels, *sides), generator=generator, dtype=dtype)
    return noise_BChw[0].to(pipeline.device)


@contextmanager
def _held(pipeline: Any, works: Sequence[Work], noise_BChw: Tensor) -> Iterator[None]:
    """Keep what is outside of the masks at the noised source."""
    height, width = noise_BChw.shape[-2:]
    free_Bhw = [
        np.ones((height, width), bool)
        if work.mask is None
        else latent_mask(work.mask, width, height)
        for work in works
    ]
    free_B1hw = torch.from_numpy(np.stack(free_Bhw)[:, None]).to(noise_BChw.device)
    source_BChw = encoded(pipeline, [work.source for work in works])
    scaled_BChw = source_BChw * pipeline.vae.config.scaling_factor
    with held_outside(pipeline.scheduler, free_B1hw, scaled_BChw, noise_BChw):
        yield


@torch.no_grad()
def encoded(pipeline: Any, sources: Sequence[Image.Image]) -> Tensor:
    """Return the autoencoder's most likely latents of pictures of one size, (B, C, h, w)."""
    pixels_BCHW = pipeline.image_processor.preprocess(list(sources))
    with _whole_precision(pipeline.vae):
        latents = pipeline.vae.encode(pixels_BCHW.to(pipeline.device, pipeline.vae.dtype))
    return latents.latent_dist.mode().to(denoiser_of(pipeline).dtype)


@torch.no_grad()
def unedited(pipeline: Any, sources: Sequence[Image.Image]) -> list[Image.Image]:
    """Return what the autoencoder alone makes of pictures: edits that change nothing."""
    latents_BChw = encoded(pipeline, sources)
    with _whole_precision(pipeline.vae):
        pixels_BCHW = pipeline.vae.decode(latents_BChw.to(pipeline.vae.dtype), return_dict=False)[0]
    return pipeline.image_processor.postprocess(pixels_BCHW, output_type="pil")


@contextmanager
def _whole_precision(vae: Any) -> Iterator[None]:
    """Let an autoencoder that overflows in half precision work in float32 meanwhile."""
    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(torch.float16)


@contextmanager
def ready_for_many(pipeline: Any) -> Iterator[None]:
    """Set a pipeline up for many pictures: texts and sources are encoded once, and convolutions
    read memory in the order that suits them.
    """
    denoiser_of(pipeline).to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    with ExitStack() as stack:
        for name in profile_of(family_of_pipeline(pipeline)).text_encoders:
            encoder = getattr(pipeline, name)
            if sum(p.numel() for p in encoder.parameters()) < LARGE:
                stack.enter_context(remembering(encoder, "forward"))
        stack.enter_context(remembering(pipeline.vae, "encode", most=2))
        yield
