"""A few seeded edits by which weights are told apart: the same pictures and noise for everyone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customize.exporting.formats.trigger_words import examples
from customize.families.words import replace_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from customize.adapters.file import AdapterFile
    from customize.families.base import Base

# Enough to tell weights apart, on a CPU too.
_STEPS, _SIDE = 12, 256


@dataclass(frozen=True)
class Request:
    """An edit to make; `plainly` is its instruction in words that a CLIP knows."""

    picture: Image.Image
    instruction: str
    plainly: str
    seed: int


def requests_of(adapter: AdapterFile, base: Base, count: int) -> tuple[Request, ...]:
    """Ask for `count` edits of drawn scenes by what the adapter was taught, over and over."""
    side = min(base.resolution, _SIDE)
    texts = itertools.islice(itertools.cycle(_instructions(adapter)), count)
    return tuple(
        Request(drawn_picture(side, seed), told, plainly, seed)
        for seed, (told, plainly) in enumerate(texts)
    )


def edited(pipeline: Any, base: Base, requests: tuple[Request, ...]) -> np.ndarray:
    """Make the edits together with any pipeline of the base; (B, H, W, 3) from 0 to 1.

    At most 12 steps, at the base's own guidances.
    """
    import torch

    from customize.editing.sample import size_told
    from customize.families.sampling_defaults import sampling_of

    own = sampling_of(base.folder)
    return pipeline(
        [request.instruction for request in requests],
        image=[request.picture for request in requests],
        num_inference_steps=min(own.steps, _STEPS),
        guidance_scale=own.text_guidance,
        image_guidance_scale=own.image_guidance,
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        output_type="np",
        **size_told(pipeline, *requests[0].picture.size),
    ).images


def drawn_picture(side: int, seed: int = 0) -> Image.Image:
    """Draw a scene of a thing or two, `side` pixels wide and high; it needs no files."""
    from customize.embedded.world.random_scenes import random_scene
    from customize.embedded.world.scenes import draw_scene

    pixels_HWC = draw_scene(random_scene(np.random.default_rng(seed)))
    return Image.fromarray(pixels_HWC).resize((side, side), Image.Resampling.BICUBIC)


def _instructions(adapter: AdapterFile) -> Iterator[tuple[str, str]]:
    """Yield what the adapter was taught, else an instruction of its words; each plainly too."""
    from customize.adapters.deltas import words

    plain = {c.word: c.initializer or c.name for c in adapter.header.concepts if c.word}
    taught = list(examples(adapter.header)) or [" ".join(["make it", *words(adapter)])]
    for instruction in taught:
        yield instruction, replace_words(instruction, plain)
