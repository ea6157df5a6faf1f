"""Many edits by diffusers' pipeline at once, each from noise of its own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from customize.editing.options import spelled
from customize.families.sampling_defaults import Sampling
from customize.shapes import Example


@torch.no_grad()
def edit_all(
    pipeline: Any, sampling: Sampling, examples: Sequence[Example], *, at_once: int, seed: int = 0
) -> list[np.ndarray]:
    """Edit every example's source, `at_once` of one size together; (H, W, 3) float in 0..1 each.

    Example i starts from the noise of seed + i, whatever it is edited with.
    """
    found: dict[int, np.ndarray] = {}
    for group in in_sizes(examples, at_once):
        outputs_BHWC = pipeline(
            [spelled(examples[index].instruction) for index in group],
            image=[Image.fromarray(examples[index].source_HWC) for index in group],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.text_guidance,
            image_guidance_scale=sampling.image_guidance,
            generator=[torch.Generator().manual_seed(seed + index) for index in group],
            output_type="np",
        ).images
        found |= zip(group, np.nan_to_num(outputs_BHWC), strict=True)
    return [found[index] for index in range(len(examples))]


def in_sizes(examples: Sequence[Example], at_once: int) -> list[list[int]]:
    """Group the examples' numbers by size, at most `at_once` together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(examples):
        sizes.setdefault(example.source_HWC.shape, []).append(index)
    return [
        same[start : start + at_once]
        for same in sizes.values()
        for start in range(0, len(same), at_once)
    ]


def size_told(pipeline: Any, width: int, height: int) -> dict[str, int]:
    """Return a picture's size, in pixels, as arguments for pipelines that would else change it.

    SDXL's scales every picture to a square where it is told no size; others work at the picture's.
    """
    told = {"width": width, "height": height}
    return told if told.keys() <= inspect.signature(pipeline.__call__).parameters.keys() else {}
