"""Pictures with their settings to edited pictures: sampled together, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customize.editing.detail import with_own_detail
from customize.editing.edited_picture import Settings
from customize.editing.options import resized
from customize.editing.sample import Request, sample_stream
from customize.errors import EditError
from customize.families.sampling_defaults import Sampling

if TYPE_CHECKING:
    from customize.editing.carried_latents import Carried


def sample_pictures(
    pipeline: Any,
    sources: Sequence[Image.Image],
    settings: Sequence[Settings],
    at_once: int,
    carried: Sequence[Carried | None],
    further: Sequence[tuple[Image.Image, ...]],
) -> list[Image.Image]:
    """Make each source's edit at its working size; settings differ in size, text and seed."""
    import torch

    requests = (
        Request(
            resized(source, (each.width, each.height)),
            each.instruction,
            each.seed,
            carried=latents,
            references=others,
        )
        for source, each, latents, others in zip(sources, settings, carried, further, strict=True)
    )
    first = settings[0]
    sampling = Sampling(first.steps, first.text_guidance, first.image_guidance)
    answers: dict[int, Image.Image] = {}
    try:
        for index, answer_HWC in sample_stream(pipeline, requests, sampling, at_once):
            _check_finite(answer_HWC, settings[index].instruction)
            (answers[index],) = pipeline.image_processor.numpy_to_pil(answer_HWC)
    except torch.OutOfMemoryError:
        largest = max(settings, key=lambda each: each.width * each.height)
        raise EditError(
            f"out of memory at {largest.width}x{largest.height} pixels; expected to fit; "
            "lower the resolution, or open the base in bfloat16"
        ) from None
    return [answers[index] for index in range(len(sources))]


def as_unedited(
    pipeline: Any, sources: Sequence[Image.Image], settings: Sequence[Settings], at_once: int
) -> list[Image.Image | None]:
    """Return what the autoencoder alone makes of each source; None where no detail is kept."""
    from customize.editing.controlled import unedited

    made: list[Image.Image | None] = [None] * len(sources)
    wanted = [index for index, each in enumerate(settings) if each.detail == "keep"]
    sizes = {index: (settings[index].width, settings[index].height) for index in wanted}
    wanted.sort(key=sizes.__getitem__)
    for size, found in groupby(wanted, key=sizes.__getitem__):
        alike = list(found)
        for start in range(0, len(alike), at_once):
            indices = alike[start : start + at_once]
            working = [resized(sources[index], size) for index in indices]
            for index, plain in zip(indices, unedited(pipeline, working), strict=True):
                made[index] = plain
    return made


def at_source_size(
    source: Image.Image, answer: Image.Image, plain: Image.Image | None
) -> Image.Image:
    """Bring an answer to its source's size: with the source's own detail, where `plain` is what the
    autoencoder alone made of it.
    """
    if plain is None:
        return resized(answer, source.size)
    return with_own_detail(source, answer, plain)


def begin_carrying(settings: Sequence[Settings]) -> list[Carried | None]:
    """Begin to carry the latents of every edit that is to keep what it leaves alone."""
    from customize.editing.carried_latents import Carried

    return [Carried() if each.keep_unchanged else None for each in settings]


def _check_finite(answer_HWC: np.ndarray, instruction: str) -> None:
    if not np.isfinite(answer_HWC).all():
        raise EditError(
            f"{instruction!r}: the base answered with pixels that are no numbers; "
            "expected finite ones; open the base in float32, or lower guidance or strength"
        )
