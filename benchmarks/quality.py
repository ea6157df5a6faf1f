"""How good edits are when the true target is known: measures shared by the quality benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from customize.embedded.world.colors import PALETTE
from customize.embedded.world.edits import DrawnEdit

CHANGED = 10
"""A pixel counts as changed when a channel of source and target differs by more than this (of 255).
"""
STRONG = 0.35
AT_ONCE = 25


@dataclass(frozen=True)
class Score:
    """One edit: PSNR in dB of output and of copying the source against the target, and what became
    of the change.

    `strong`: the squared error in the truly changed pixels is below 35 % of that of copying the
    source. `unchanged_db`: PSNR over the pixels that should stay. `color` is the median output
    colour where the target newly shows the colour asked for (None without one).
    """

    output_db: float
    copy_db: float
    strong: bool
    unchanged_db: float
    color: np.ndarray | None


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB, at most 60."""
    error = np.mean((one.astype(np.float64) - other) ** 2) if one.size else 0.0
    return float(10 * np.log10(255**2 / max(error, 0.065)))


def score(edit: DrawnEdit, output_HWC: np.ndarray) -> Score:
    """Compare one output with its target."""
    source, target = edit.source_HWC.astype(np.float64), edit.target_HWC.astype(np.float64)
    changed_HW = np.abs(source - target).max(axis=-1) > CHANGED
    output_error = ((output_HWC - target)[changed_HW] ** 2).sum()
    copy_error = ((source - target)[changed_HW] ** 2).sum()
    return Score(
        psnr(output_HWC, edit.target_HWC),
        psnr(edit.source_HWC, edit.target_HWC),
        bool(output_error < STRONG * copy_error),
        psnr(output_HWC[~changed_HW], edit.target_HWC[~changed_HW]),
        _color_made(edit, output_HWC, changed_HW),
    )


def _color_made(
    edit: DrawnEdit, output_HWC: np.ndarray, changed_HW: np.ndarray
) -> np.ndarray | None:
    if edit.color is None:
        return None
    off_HW = np.abs(edit.target_HWC.astype(np.int16) - np.array(PALETTE[edit.color])).max(axis=-1)
    where_HW = changed_HW & (off_HW <= 3)
    return np.median(output_HWC[where_HW], axis=0) if where_HW.any() else None


@torch.no_grad()
def edit_all(pipeline: Any, edits: Sequence[DrawnEdit], **settings: Any) -> np.ndarray:
    """Run diffusers' pipeline over all edits; uint8 (N, H, W, 3), seed i for edit i."""
    outputs = []
    for start in range(0, len(edits), AT_ONCE):
        batch = edits[start : start + AT_ONCE]
        images = np.stack([edit.source_HWC for edit in batch]).astype(np.float32) / 255
        seeds = range(start, start + len(batch))
        result = pipeline(
            prompt=[edit.instruction for edit in batch],
            image=torch.from_numpy(images).permute(0, 3, 1, 2),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            num_inference_steps=settings["steps"],
            guidance_scale=settings["text_guidance"],
            image_guidance_scale=settings["image_guidance"],
        )
        outputs.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(outputs)


def table(rows: Sequence[Sequence[object]], titles: Sequence[str]) -> str:
    """Lay out rows as a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
