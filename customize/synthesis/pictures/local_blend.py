"""Local blend: outside of what the changed words attend to, the second picture is the first.

Hertz et al. 2022 (arXiv 2208.01626, section 3.2, "Local Editing").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from customize.synthesis.pictures.alignment import Alignment

START = 0.2
"""Share of the steps before which nothing is blended: maps mean little in pure noise."""
THRESHOLD = 0.3
"""Of a map's largest value; what lies above is where the edit takes place."""
COARSEST, FINEST = 4, 2
"""Maps count whose sides are the latents' divided by 2 to 4: 16 to 32 of 64."""


class SeenMaps:
    """Adds up where each picture's changed words were looked at, over layers and steps."""

    def __init__(
        self, alignments: Sequence[Alignment | None], latent_size: tuple[int, int]
    ) -> None:
        """Take the pairs' alignments, None for a pair not blended; the size is (h, w)."""
        self._alignments, self._size = alignments, latent_size
        self._sum_N2hw = torch.zeros(len(alignments), 2, *latent_size)

    def see(self, maps_N2HQL: Tensor) -> None:
        """Add a layer's maps: pairs, pictures, heads, places, tokens."""
        height, width = self._size
        shrunk = (height * width / maps_N2HQL.shape[3]) ** 0.5
        if not FINEST <= shrunk <= COARSEST:
            return
        factor = round(shrunk)
        for n, alignment in enumerate(self._alignments):
            if alignment is None:
                continue
            for picture, words in enumerate((alignment.first_L, alignment.second_M)):
                seen_Q = (maps_N2HQL[n, picture].float() @ words.to(maps_N2HQL.device)).mean(dim=0)
                small = seen_Q.view(1, 1, -(-height // factor), -1).cpu()
                self._sum_N2hw[n, picture] += F.interpolate(small, self._size)[0, 0]

    def blended(self, latents_BChw: Tensor) -> Tensor:
        """Put the first picture's latents where neither picture's changed words are looked at."""
        result = latents_BChw.clone()
        for n, alignment in enumerate(self._alignments):
            if alignment is None:
                continue
            spread_2hw = F.max_pool2d(self._sum_N2hw[n][:, None], 3, stride=1, padding=1)[:, 0]
            most_2 = spread_2hw.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
            inside_hw = (spread_2hw / most_2 > THRESHOLD).any(dim=0).to(latents_BChw.device)
            first, second = latents_BChw[2 * n], latents_BChw[2 * n + 1]
            result[2 * n + 1] = torch.where(inside_hw, second, first)
        return result
