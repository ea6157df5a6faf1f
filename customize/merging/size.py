"""How large a merge becomes, known before anything is computed, and what would be smaller."""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from customize.adapters.factors import Limits
from customize.files import check_room
from customize.files.disk import size_told
from customize.merging.layers import MergedLayer
from customize.merging.methods import Concat, Linear, MergeMethod, Svd

if TYPE_CHECKING:
    from customize.merging.job import Job

log = logging.getLogger(__name__)
MUCH, FROM = 4, 200_000_000
"""A file this many times as large as its inputs together, and of so many bytes, is told of."""


def check_size(job: Job, output: Path, method: MergeMethod, limits: Limits, width: int) -> None:
    """Tell of a file far larger than its inputs; raises OutputError where the disk lacks room.

    `width` is the bytes of a number. Twice the size is needed while the file is put together.
    """
    if limits.energy is not None or limits.error is not None:
        return  # how much is cut off is known when it is done
    size = width * sum(elements(layer, method, limits) for layer in job.layers())
    check_room(output, 2 * size)
    inputs = sum(path.stat().st_size for path in job.files)
    if size > max(FROM, MUCH * inputs):
        log.warning(
            "%s: it takes %s, its inputs %s together, as this way needs full weights; --rank, such "
            "as --rank 32, writes a smaller file, and says what it loses",
            *(output, size_told(size), size_told(inputs)),
        )


def elements(layer: MergedLayer, method: MergeMethod, limits: Limits) -> int:
    """Count the numbers that a layer's merged change is written in."""
    whole = prod(layer.shape)
    side = layer.shape[0] + whole // layer.shape[0]
    most = min(layer.shape[0], whole // layer.shape[0])
    if limits.rank is not None:
        return min(limits.rank, most) * side
    match method:
        case Linear():
            return (layer.rank or 0) * side if layer.thin else whole
        case Concat():
            return whole if layer.rank is None else layer.rank * side
        case Svd():
            return min(most, layer.rank or most) * side
        case _:
            return whole
