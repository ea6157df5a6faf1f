"""One field of noise for pictures of every size: where two pictures overlap they start alike."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
"""Side, in latent pixels, of the squares that the field is drawn in, each from a seed of its own,
so that any part of a field without end can be had at the price of that part."""


def noise_field(seed: int, channels: int, height: int, width: int) -> Tensor:
    """Return the field's upper left part, (C, h, w) float32 on the CPU, unit normal.

    >>> small, large = noise_field(7, 4, 8, 100), noise_field(7, 4, 90, 70)
    >>> bool((small[:, :, :70] == large[:, :8]).all())
    True
    """
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    field_Chw = torch.cat(
        [
            torch.cat([_block(seed, channels, row, column) for column in range(columns)], dim=2)
            for row in range(rows)
        ],
        dim=1,
    )
    return field_Chw[:, :height, :width].contiguous()


def _block(seed: int, channels: int, row: int, column: int) -> Tensor:
    # Cantor's pairing numbers the blocks whatever the size; the prime keeps near seeds apart.
    number = (row + column) * (row + column + 1) // 2 + column
    generator = torch.Generator().manual_seed((seed + number * 1_000_000_007) % 2**63)
    return torch.randn(channels, BLOCK, BLOCK, generator=generator)
