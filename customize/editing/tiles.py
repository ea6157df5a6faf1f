"""Edit a picture larger than the base works at, in overlapping tiles without a seam."""

from __future__ import annotations

import torch
from torch import Tensor

from customize.editing.denoiser_calls import Answer, Call, Layer

OVERLAP = 0.5
"""How much of a tile its neighbour covers as well, at least, as a share of its side."""


def in_tiles(side: int, at_once: int) -> Layer:
    """Return the layer that predicts in tiles of `side` latent pixels and averages where they meet.

    The average is taken of the predictions at every step, as all tiles are parts of one noisy
    picture (MultiDiffusion, arXiv 2302.08113, eq. 5), weighted by a bell that falls to nearly
    nothing at a tile's edge. `at_once` tiles of each picture's branch go into one call.
    """

    def layer(answer: Answer, call: Call) -> Tensor:
        height, width = call.noisy_BChw.shape[-2:]
        if height <= side and width <= side:
            return answer(call)
        corners = [(y, x) for y in starts(height, side) for x in starts(width, side)]
        bell_hw = _bell(min(side, height)).outer(_bell(min(side, width)))
        bell_hw = bell_hw.to(call.noisy_BChw.device)
        total: Tensor | None = None
        weight_hw = torch.zeros(height, width, device=bell_hw.device)
        for begin in range(0, len(corners), at_once):
            some = corners[begin : begin + at_once]
            predicted = answer(_cut(call, some, side)).chunk(len(some))
            for (y, x), tile_BChw in zip(some, predicted, strict=True):
                if total is None:
                    shape = (*tile_BChw.shape[:2], height, width)
                    total = torch.zeros(shape, device=bell_hw.device)
                total[..., y : y + side, x : x + side] += tile_BChw * bell_hw
                weight_hw[y : y + side, x : x + side] += bell_hw
        assert total is not None
        return (total / weight_hw).to(call.noisy_BChw.dtype)

    return layer


def starts(length: int, side: int) -> list[int]:
    """Return where tiles begin along a line: evenly, from end to end, overlapping enough.

    >>> starts(100, 40)
    [0, 20, 40, 60]
    >>> starts(30, 40)
    [0]
    """
    if length <= side:
        return [0]
    steps = -(-(length - side) // round(side * (1 - OVERLAP)))
    return [round(step * (length - side) / steps) for step in range(steps + 1)]


def _bell(length: int) -> Tensor:
    """Return a raised cosine, largest in the middle and small, not 0, at the ends."""
    places = (torch.arange(length) + 0.5) / length
    return (0.5 - 0.5 * torch.cos(2 * torch.pi * places)).clamp_min(1e-3)


def _cut(call: Call, corners: list[tuple[int, int]], side: int) -> Call:
    """Ask the same of several tiles, all rows of the first before those of the second."""
    rows = torch.arange(len(call.noisy_BChw)).repeat(len(corners))
    tiles = [call.noisy_BChw[..., y : y + side, x : x + side] for y, x in corners]
    repeated = call.rows(rows)
    return Call(torch.cat(tiles), call.time, repeated.told)
