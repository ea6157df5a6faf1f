"""Pictures and instructions -> edited pixels: the one caller of diffusers' pipelines.

A pipeline edits several pictures at once only if they share size, steps and guidance. Requests of
all kinds may come here in any order; those that go together are put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from customize.editing.options import with_words_as_taught
from customize.families import family_of_pipeline, pipeline_arguments, profile_of

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from customize.editing.carried_latents import Carried
    from customize.families.sampling_defaults import Sampling

MOST_WAITING = 64
"""Requests that wait for others of their kind: a stream of odd sizes must not fill the memory."""

MOST_AT_ONCE = 16
CPU_CELLS = 12_288
"""Latent pixels, over all branches, beyond which a CPU gains no more (`edit_speed.py`)."""


@dataclass(frozen=True)
class Request:
    """One edit to make of `source`, RGB, at the size it has: one that the base can work at.

    `seed` decides the noise, on every device alike. `negative` says what the picture shall not
    show, None leaves that to the base; `sampling` None takes what all requests are made with.
    `noise_Chw` is what it starts from where that is not the seed's own. With `carried` what an edit
    hardly moves stays, and the next edit of the picture may go on from its latents. `references`
    are further pictures, of any size, for bases that read them.
    """

    source: Image.Image
    instruction: str
    seed: int = 0
    negative: str | None = None
    sampling: Sampling | None = None
    noise_Chw: Tensor | None = None
    carried: Carried | None = None
    references: tuple[Image.Image, ...] = ()


def at_once_on_cpu(cells: int) -> int:
    """Choose how many pictures of `cells` latent pixels to sample together on a CPU: as many as
    fill its caches usefully, guidance making three of each.
    """
    return max(1, min(MOST_AT_ONCE, CPU_CELLS // (3 * cells)))


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
    for batch in batches(pipeline, requests, sampling, at_once):
        numbers, together = zip(*batch, strict=True)
        yield from zip(numbers, _call(pipeline, together, sampling), strict=True)


def batches(
    pipeline: Any, requests: Iterable[Request], sampling: Sampling, at_once: int
) -> Iterator[list[tuple[int, Request]]]:
    """Put together requests, each with its number, that one call of the pipeline can serve.

    A batch is full unless it is one of the last, or others have waited too long for company.
    """
    most = profile_of(family_of_pipeline(pipeline)).most_at_once
    at_once = min(at_once, most or at_once)
    waiting: dict[object, list[tuple[int, Request]]] = {}
    for number, request in enumerate(requests):
        own = request.negative is None, request.noise_Chw is None
        alone = number if request.references else None
        kind = request.source.size, request.sampling or sampling, own, alone
        alike = waiting.setdefault(kind, [])
        alike.append((number, request))
        if len(alike) == at_once or request.references:
            yield waiting.pop(kind)
        elif sum(map(len, waiting.values())) == MOST_WAITING:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _call(pipeline: Any, requests: Sequence[Request], sampling: Sampling) -> np.ndarray:
    """Call the pipeline for requests of one kind; (B, H, W, 3) float in 0..1."""
    import torch

    from customize.editing.carried_latents import carrying

    sampling = requests[0].sampling or sampling
    negatives = [each.negative for each in requests if each.negative is not None] or None
    asked = pipeline_arguments(
        pipeline,
        [each.source for each in requests],
        [with_words_as_taught(each.instruction) for each in requests],
        negatives,
        sampling,
    )
    if references := requests[0].references:
        assert len(requests) == 1, "each edit with references is made alone"
        asked = {**asked, "image": [*asked["image"], *references]}
    generators = [torch.Generator().manual_seed(each.seed) for each in requests]
    noise_Chw = [each.noise_Chw for each in requests if each.noise_Chw is not None]
    latents_BChw = torch.stack(noise_Chw) if noise_Chw else None
    with carrying(pipeline.vae, [each.carried for each in requests]):
        answered = pipeline(**asked, generator=generators, latents=latents_BChw, output_type="np")
    return answered.images
