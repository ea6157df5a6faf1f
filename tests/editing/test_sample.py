"""One caller of pipelines: what it answers is diffusers' own, for every mix of requests."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_pipeline, toy_xl_pipeline
from builders.pairs import scene

from customize.editing.sample import MOST_WAITING, Request, batches, sample, sample_stream
from customize.families.sampling_defaults import Sampling

SAMPLING = Sampling(steps=2, text_guidance=3.0, image_guidance=1.4)
GENTLE = replace(SAMPLING, text_guidance=1.5)
REQUESTS = (
    Request(scene(0, (32, 32)), "make the dog red", seed=5),
    Request(scene(1, (48, 32)), "paint it blue", seed=6),
    Request(scene(2, (32, 32)), "add the hat", seed=7, negative="night"),
    Request(scene(3, (32, 32)), "make it night", seed=8, sampling=GENTLE),
    Request(scene(4, (48, 32)), "make it night", seed=9),
)


@pytest.fixture(scope="module", params=[toy_pipeline, toy_xl_pipeline])
def pipeline(request: pytest.FixtureRequest) -> Any:
    return request.param()


def plainly(pipeline: Any, request: Request) -> np.ndarray:
    """Make one edit with diffusers alone."""
    how, (width, height) = request.sampling or SAMPLING, request.source.size
    size = {"width": width, "height": height} if hasattr(pipeline, "text_encoder_2") else {}
    return pipeline(
        request.instruction,
        image=request.source,
        num_inference_steps=how.steps,
        guidance_scale=how.text_guidance,
        image_guidance_scale=how.image_guidance,
        negative_prompt=request.negative,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="np",
        **size,
    ).images[0]


def test_mixed_requests_are_answered_as_diffusers_answers_each(pipeline: Any) -> None:
    for request, answer_HWC in zip(REQUESTS, sample(pipeline, REQUESTS, SAMPLING), strict=True):
        assert answer_HWC.shape == (*request.source.size[::-1], 3)
        assert np.allclose(answer_HWC, plainly(pipeline, request), atol=1e-4)


def test_what_differs_between_requests_shows(pipeline: Any) -> None:
    def alone(request: Request) -> np.ndarray:
        return sample(pipeline, [request], SAMPLING)[0]

    first = alone(REQUESTS[0])
    for changed in ({"seed": 6}, {"negative": "night"}, {"sampling": GENTLE}):
        assert np.abs(alone(replace(REQUESTS[0], **changed)) - first).max() > 1e-4


def test_requests_that_go_together_are_put_together() -> None:
    made = batches(toy_pipeline(), REQUESTS * 2, SAMPLING, at_once=3)
    together = [[number for number, _ in batch] for batch in made]
    assert together == [[1, 4, 6], [0, 5], [2, 7], [3, 8], [9]]


def test_a_stream_without_end_is_answered_as_it_comes(pipeline: Any) -> None:
    taken = list[int]()

    def endless() -> Any:
        for number in count():
            taken.append(number)
            yield replace(REQUESTS[0], seed=number)

    stream = sample_stream(pipeline, endless(), SAMPLING, at_once=2)
    assert [number for number, _ in islice(stream, 3)] == [0, 1, 2]
    assert taken == [0, 1, 2, 3]


def test_odd_sizes_do_not_wait_for_company_for_ever() -> None:
    sizes = (Request(scene(0, (8 + 4 * n, 32)), "make it red") for n in range(2 * MOST_WAITING))
    first = next(batches(toy_pipeline(), sizes, SAMPLING, at_once=2))
    assert [number for number, _ in first] == [0], "the one that waited longest"
    assert next(sizes).source.width == 8 + 4 * MOST_WAITING
