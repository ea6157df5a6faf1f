"""Pictures and instructions -> edited pixels: the one caller of diffusers' pipelines.

A pipeline edits several pictures at once only if they share size, steps and guidance. Requests of
all kinds may come here in any order; those that go together are put together.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from customize.editing.options import spelled

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from customize.families.sampling_defaults import Sampling

MOST_WAITING = 64
"""Requests that wait for others of their kind: a stream of odd sizes must not fill the memory."""


@dataclass(frozen=True)
class Request:
    """One edit to make of `source`, RGB, at the size it has: one that the base can work at.

    `seed` decides the noise, on every device alike. `negative` says what the picture shall not
    show, None leaves that to the base; `sampling` None takes what all requests are made with.
    `noise_Chw` is what it starts from where that is not the seed's own.
    """

    source: Image.Image
    instruction: str
    seed: int = 0
    negative: str | None = None
    sampling: Sampling | None = None
    noise_Chw: Tensor | None = None


def sample(
    pipeline: Any, requests: Sequence[Request], sampling: Sampling, at_once: int = 8
) -> list[np.ndarray]:
    """Make every edit, up to `at_once` that go together at a time; (H, W, 3) float in 0..1 each.

    Answers stand in the order of the requests. What a request starts from does not depend on those
    it is made with. Pixels may be no numbers where a base overflows its precision.
    """
    answers = dict(sample_stream(pipeline, requests, sampling, at_once))
    return [answers[index] for index in range(len(requests))]


def sample_stream(
    pipeline: Any, requests: Iterable[Request], sampling: Sampling, at_once: int = 8
) -> Iterator[tuple[int, np.ndarray]]:
    """Do what `sample` does for a stream without end: yield (number of the request, pixels).

    Requests are taken as they are needed, and answers come as they are made, in any order.
    """
    for batch in batches(requests, sampling, at_once):
        numbers, together = zip(*batch, strict=True)
        yield from zip(numbers, _call(pipeline, together, sampling), strict=True)


def batches(
    requests: Iterable[Request], sampling: Sampling, at_once: int
) -> Iterator[list[tuple[int, Request]]]:
    """Put together requests, each with its number, that one call can serve.

    A batch is full unless it is one of the last, or others have waited too long for company.
    """
    waiting: dict[object, list[tuple[int, Request]]] = {}
    for number, request in enumerate(requests):
        own = request.negative is None, request.noise_Chw is None
        kind = request.source.size, request.sampling or sampling, own
        alike = waiting.setdefault(kind, [])
        alike.append((number, request))
        if len(alike) == at_once:
            yield waiting.pop(kind)
        elif sum(map(len, waiting.values())) == MOST_WAITING:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _call(pipeline: Any, requests: Sequence[Request], sampling: Sampling) -> np.ndarray:
    """Call the pipeline for requests of one kind; (B, H, W, 3) float in 0..1."""
    import torch

    first = requests[0]
    sampling = first.sampling or sampling
    negative = None if first.negative is None else [each.negative for each in requests]
    noise_Chw = [each.noise_Chw for each in requests if each.noise_Chw is not None]
    return pipeline(
        [spelled(each.instruction) for each in requests],
        image=[each.source for each in requests],
        **_size_arguments(pipeline, *first.source.size),
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.text_guidance,
        image_guidance_scale=sampling.image_guidance,
        negative_prompt=negative,
        generator=[torch.Generator().manual_seed(each.seed) for each in requests],
        latents=torch.stack(noise_Chw) if noise_Chw else None,
        output_type="np",
    ).images


def _size_arguments(pipeline: Any, width: int, height: int) -> dict[str, int]:
    """Return a picture's size, in pixels, as arguments for pipelines that would else change it.

    SDXL's scales every picture to a square where it is told no size; others work at the picture's.
    """
    size = {"width": width, "height": height}
    return size if size.keys() <= inspect.signature(pipeline.__call__).parameters.keys() else {}
