"""How good edits are when the true target is known: measures shared by the quality benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customize.editing import Editor
from customize.embedded.world.colors import PALETTE
from customize.embedded.world.edits import DrawnEdit
from customize.embedded.world.scene_changes import ChangedThing, NamedChange
from customize.embedded.world.scenes import draw_scene
from customize.families.base import EMBEDDED, resolve_base

CHANGED = 10
"""A pixel counts as changed when a channel of source and target differs by more than this (of 255).
"""
STRONG = 0.35
RIGHT = 0.15
KEPT_DB = 24.0
AT_ONCE = 25


@dataclass(frozen=True)
class Score:
    """One edit: PSNR in dB of output and of copying the source against the target, and what became
    of the change.

    `error_left` is the squared error in the truly changed pixels as a share of that of copying the
    source. `unchanged_db`: PSNR over the pixels that should stay, None without any. `color` is the
    median output colour where the target newly shows the colour asked for (None without one).
    `verdict` tells which thing changed, where the instruction names one.
    """

    output_db: float
    copy_db: float
    error_left: float
    unchanged_db: float | None
    color: np.ndarray | None
    verdict: ChangedThing | None

    @property
    def strong(self) -> bool:
        """Tell whether at most 35 % of the error is left: the older, laxer measure."""
        return self.error_left < STRONG

    @property
    def right(self) -> bool:
        """Tell whether a person would call the edit done: at most 15 % of the error left, the rest
        of the picture kept at 24 dB, and the named thing the one that changed.
        """
        named = self.verdict in (None, "named")
        kept = self.unchanged_db is None or self.unchanged_db >= KEPT_DB
        return named and self.error_left <= RIGHT and kept


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
        float(output_error / copy_error) if copy_error else 0.0,
        None if changed_HW.all() else psnr(output_HWC[~changed_HW], edit.target_HWC[~changed_HW]),
        color_where(edit, output_HWC, PALETTE[edit.color]) if edit.color else None,
        verdict_of(edit, output_HWC),
    )


def color_where(
    edit: DrawnEdit, output_HWC: np.ndarray, rgb: tuple[int, int, int]
) -> np.ndarray | None:
    """Take the median output colour where the target newly shows `rgb`; None where it does not."""
    source, target = edit.source_HWC.astype(np.int16), edit.target_HWC.astype(np.int16)
    changed_HW = np.abs(source - target).max(axis=-1) > CHANGED
    where_HW = changed_HW & (np.abs(target - np.array(rgb)).max(axis=-1) <= 3)
    return np.median(output_HWC[where_HW], axis=0) if where_HW.any() else None


def verdict_of(edit: DrawnEdit, output_HWC: np.ndarray) -> ChangedThing | None:
    """Tell which thing changed: that of the drawn outcome nearest to the output.

    The outcomes are the change made to the named thing, to another one, to it and others, or to
    none; only pixels in which they differ count.
    """
    if not isinstance(edit.change, NamedChange):
        return None
    outcomes = edit.change.change.outcomes(edit.change.before, edit.change.index)
    pictures = np.stack([draw_scene(scene, len(output_HWC)) for _, scene in outcomes])
    told_HW = (np.ptp(pictures, axis=0) > CHANGED).any(axis=-1)
    apart = (pictures[:, told_HW].astype(np.float64) - output_HWC[told_HW]) ** 2
    return outcomes[int(apart.mean(axis=(1, 2)).argmin())][0]


def interval(hits: int, count: int) -> tuple[float, float]:
    """Give the 95 % interval of a share (Wilson 1927, score interval)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    reach = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return float(max(0.0, (middle - reach) / scale)), float(min(1.0, (middle + reach) / scale))


def percent(hits: Sequence[bool]) -> str:
    """Write a share with its interval: `90 % (82-95)`."""
    if not hits:
        return ""
    low, high = interval(sum(hits), len(hits))
    return f"{sum(hits) / len(hits):.0%} ({100 * low:.0f}-{100 * high:.0f})"


def own_way(base: Path = EMBEDDED, **changes: Any) -> dict[str, Any]:
    """Read how a base says it is edited with; `detail="scaled"` asks for what it draws alone."""
    written: dict[str, Any] = json.loads((base / "customize.json").read_text())["edit"]
    return written | changes


def edit_all(
    pipeline: Any,
    edits: Sequence[DrawnEdit],
    first_seed: int = 0,
    *,
    base: str = "embedded",
    **settings: Any,
) -> np.ndarray:
    """Make all edits as `customize edit` does; uint8 (N, H, W, 3), seed `first_seed` + i for i.

    `pipeline` is diffusers' own, of `base` as it is or with what was taught; with `detail="scaled"`
    the answers are the pipeline's.
    """
    editor = Editor(pipeline, resolve_base(base))
    answers = editor.batch(
        [Image.fromarray(edit.source_HWC) for edit in edits],
        [edit.instruction for edit in edits],
        at_once=AT_ONCE,
        seed=first_seed,
        **settings,
    )
    return np.stack([np.asarray(answer.image) for answer in answers])


def table(rows: Sequence[Sequence[object]], titles: Sequence[str]) -> str:
    """Lay out rows as a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
