"""Judge what a reader made of written files: every layer's change, strangers, and pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from customize.errors import ExportError
from customize.exporting.proof.readers import ReadBack
from customize.exporting.targets import Written

if TYPE_CHECKING:
    from torch import Tensor

    from customize.adapters.file import AdapterFile
    from customize.families.base import Base
    from customize.families.loading.layer_weights import BaseWeights

TITLES = ("target", "read by", "modules matched", "largest relative error", "largest pixel change")
TOLERANCE = 1e-3
"""Relative error of a change beyond what writing announced: half precision, and adding it up."""

PIXELS = 2.0
"""How far one edit's pixels (0..255) may be from the adapter's own where nothing was cut off, at
that tolerance."""


@dataclass(frozen=True)
class ReaderVerdict:
    """What one reader found in one target's files.

    `error` is the largest relative error of a layer (for full models against the weight itself,
    which is what their precision rounds), `pixels` the largest difference of the edits, 0..255,
    None when none was made; `strangers` are layers that changed and should not have.
    """

    target: str
    reader: str
    matched: int
    expected: int
    error: float
    pixels: float | None
    strangers: tuple[str, ...] = ()


def is_cut(written: Written) -> bool:
    """Tell whether limits cost more of a layer than rounding does."""
    return written.options.limited and written.largest_error > tolerance(written)


def tolerance(written: Written) -> float:
    """Return the relative error that the written precision explains."""
    import torch

    return max(TOLERANCE, torch.finfo(getattr(torch, written.options.dtype)).eps)


def judge(
    found: ReadBack, written: Written, adapter: AdapterFile, base: Base, pixels: float | None
) -> ReaderVerdict:
    """Compare every layer that a reader found with the adapter; `pixels` is how far edits moved.

    Raises ExportError for a verdict that does not prove the files.
    """
    from customize.adapters.deltas import layers
    from customize.families.loading.layer_weights import BaseWeights

    weights, changed = BaseWeights(base), layers(adapter)
    errors = {
        layer: _error(found, written, adapter, layer, before.float())
        for layer, before in weights.several(changed)
    }
    verdict = ReaderVerdict(
        target=written.target,
        reader=found.reader,
        matched=sum(error <= allowed(written, layer) for layer, error in errors.items()),
        expected=len(changed),
        error=max(errors.values(), default=0.0),
        pixels=pixels,
        strangers=tuple(_strangers(found, written, set(changed), weights)),
    )
    refuse_unproven(verdict, written)
    return verdict


def largest_difference(edits_BHWC: np.ndarray, others_BHWC: np.ndarray) -> float:
    """Return how far one pixel moved at most, 0..255."""
    return float(np.abs(edits_BHWC - others_BHWC).max() * 255)


def rows(verdicts: Sequence[ReaderVerdict]) -> list[list[str]]:
    """Make rows of a table under `TITLES`."""
    return [
        [
            verdict.target,
            verdict.reader,
            f"{verdict.matched} of {verdict.expected}",
            f"{verdict.error:.1e}",
            "-" if verdict.pixels is None else f"{verdict.pixels:.2f} of 255",
        ]
        for verdict in verdicts
    ]


def _error(
    found: ReadBack, written: Written, adapter: AdapterFile, layer: str, before: Tensor
) -> float:
    from customize.adapters.deltas import weight_delta

    exact = weight_delta(adapter, layer, before)
    off = (found.weight_of(layer).float() - before - exact).norm()
    whole = before + exact if written.target == "full-model" else exact
    return float(off / whole.norm()) if whole.any() else float(off)


def allowed(written: Written, layer: str) -> float:
    """Return the relative error that a layer may come back with."""
    return 1.05 * written.errors.get(layer, 0.0) + tolerance(written)


def _strangers(
    found: ReadBack, written: Written, changed: set[str], weights: BaseWeights
) -> Iterator[str]:
    """Name layers that came back changed though the adapter leaves them alone."""
    others = (layer for layer in weights.layers() if layer not in changed)
    for layer, weight in weights.several(others):
        before = weight.float()
        # Words only add rows to the embedding table.
        after = found.weight_of(layer).float()[: len(before)]
        off = float((after - before).norm())
        rounding = tolerance(written) if written.target == "full-model" else 0.0
        if after.shape != before.shape or off > rounding * float(before.norm()):
            yield layer


def refuse_unproven(verdict: ReaderVerdict, written: Written) -> None:
    """Raise ExportError for a verdict that does not prove the files."""
    if verdict.strangers:
        found = f"{len(verdict.strangers)} other layers changed, such as {verdict.strangers[0]}"
    elif verdict.matched < verdict.expected:
        found = (
            f"only {verdict.matched} of {verdict.expected} layers came back as they are (largest "
            f"relative error {verdict.error:.1e})"
        )
    elif verdict.pixels is not None and verdict.pixels > _pixels_allowed(written):
        found = f"an edit differs by {verdict.pixels:.1f} of 255"
    else:
        return
    raise ExportError(
        f"{written.target}: read back by {verdict.reader}, {found}; expected the adapter's own "
        "change; the files were removed; try --dtype float32, or another target"
    )


def _pixels_allowed(written: Written) -> float:
    """Hold only files that lost nothing to the adapter's own pixels."""
    free = is_cut(written) or written.target == "full-model"
    return float("inf") if free else PIXELS * tolerance(written) / TOLERANCE
