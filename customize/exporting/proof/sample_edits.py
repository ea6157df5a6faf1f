"""A few seeded edits by which weights are told apart: the same pictures and noise for everyone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customize.editing.sample import Request, sample
from customize.exporting.formats.trigger_words import examples
from customize.families.sampling_defaults import sampling_of
from customize.families.words import replace_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from customize.adapters.file import AdapterFile
    from customize.families.base import Base

# Enough to tell weights apart, on a CPU too.
_STEPS, _SIDE = 12, 256


@dataclass(frozen=True)
class SampleEdit:
    """An edit to make; `plainly` is its instruction in words that a CLIP knows."""

    request: Request
    plainly: str


def choose_samples(adapter: AdapterFile, base: Base, count: int) -> tuple[SampleEdit, ...]:
    """Ask for `count` edits of drawn scenes by what the adapter was taught, over and over."""
    side = min(base.resolution, _SIDE)
    texts = itertools.islice(itertools.cycle(_instructions(adapter)), count)
    return tuple(
        SampleEdit(Request(drawn_picture(side, seed), instruction, seed), plainly)
        for seed, (instruction, plainly) in enumerate(texts)
    )


def edited(pipeline: Any, base: Base, samples: tuple[SampleEdit, ...]) -> np.ndarray:
    """Make the edits together with any pipeline of the base; (B, H, W, 3) from 0 to 1.

    At most 12 steps, at the base's own guidances.
    """
    own = sampling_of(base)
    fewer = replace(own, steps=min(own.steps, _STEPS))
    requests = [each.request for each in samples]
    return np.stack(sample(pipeline, requests, fewer, at_once=len(requests)))


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
