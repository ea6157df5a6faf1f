"""Pictures for `klein_toy.py`: a square on a ground, recoloured whole or by halves, in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from exact_autoencoder import TILE

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 210, 50),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
PARTS = {"it": (True, True), "the left half": (True, False), "the right half": (False, True)}
CELLS, SQUARE = 8, 4
"""Tiles of a side of the picture and of the square in it."""


@dataclass(frozen=True)
class Drawn:
    """A square of one colour on a ground; colours are 0 to 255, (3,)."""

    ground: np.ndarray
    own: np.ndarray
    x: int
    y: int

    def picture(
        self, left: np.ndarray | None = None, right: np.ndarray | None = None
    ) -> np.ndarray:
        """Paint it, with halves in other colours where these are given; (64, 64, 3) uint8."""
        cells = np.empty((CELLS, CELLS, 3), np.uint8)
        cells[:] = self.ground
        middle, rows = self.x + SQUARE // 2, slice(self.y, self.y + SQUARE)
        cells[rows, self.x : middle] = self.own if left is None else left
        cells[rows, middle : self.x + SQUARE] = self.own if right is None else right
        return cells.repeat(TILE, axis=0).repeat(TILE, axis=1)


def drawn(random: np.random.Generator) -> Drawn:
    """Draw a scene: one of nine places, a dull ground, any colour."""
    ground = random.integers(70, 186, 3).astype(np.uint8)
    x, y = 2 * random.integers(0, 3, 2)
    return Drawn(ground, random.integers(0, 256, 3).astype(np.uint8), int(x), int(y))


def known_edit(random: np.random.Generator) -> tuple[np.ndarray, str, np.ndarray]:
    """Draw an edit that the base shall know: source, instruction, target."""
    scene, part = drawn(random), list(PARTS)[random.integers(len(PARTS))]
    name = list(COLORS)[random.integers(len(COLORS))]
    halves = [np.array(COLORS[name]) if on else None for on in PARTS[part]]
    return scene.picture(), f"make {part} {name}", scene.picture(*halves)


def latents(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Encode mosaics as the exact autoencoder does, without running it; (B, 16, 4, 4)."""
    pixels = torch.from_numpy(np.stack(pictures)[:, ::TILE, ::TILE]).permute(0, 3, 1, 2)
    cells_BChw = pixels.float() / 127.5 - 1
    cells_BChw = torch.cat([cells_BChw, cells_BChw.mean(1, keepdim=True)], dim=1)
    return torch.nn.functional.pixel_unshuffle(cells_BChw, 2) / 0.5
