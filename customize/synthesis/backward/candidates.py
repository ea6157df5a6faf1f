"""How good a made-up source of a finished picture is: its structure is kept, its look is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

SIDE = 96
"""Pixels of a side at which structure is compared: shapes, not grain."""

RIM = 0.1
"""Share of each side that is left out: looks put frames there, which would outweigh the rest."""


@dataclass(frozen=True)
class SourceScores:
    """`structure` is -1..1, 1 for the same outlines; `gone` is how much less the candidate looks
    like the other finished pictures than its own does, by CLIP, 0 for a copy.
    """

    structure: float
    gone: float

    def facts(self) -> dict[str, float]:
        """Return them as plain values."""
        return {"structure": round(self.structure, 4), "gone": round(self.gone, 4)}


def structure(one: Image.Image, other: Image.Image) -> float:
    """Correlate two pictures' outlines: the strength of brightness edges, whatever the colours."""
    return float(np.mean(_edges(one) * _edges(other)))


def _edges(picture: Image.Image) -> np.ndarray:
    """Return edge strengths (N,) of mean 0 and deviation 1."""
    width, height = picture.size
    inner = (RIM * width, RIM * height, (1 - RIM) * width, (1 - RIM) * height)
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=inner)
    luma_HW = np.asarray(small.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64)
    down_HW, across_HW = np.gradient(luma_HW)
    strength = np.hypot(down_HW, across_HW).ravel()
    return (strength - strength.mean()) / max(float(strength.std()), 1e-6)


def look_gone(finished_BD: Tensor, number: int, candidates_BD: Tensor) -> list[float]:
    """Say for each candidate of finished picture `number` how much of the common look it lost.

    The look is the mean of all other finished pictures' unit vectors, or the picture's own where
    there is no other.
    """
    others = [n for n in range(len(finished_BD)) if n != number] or [number]
    look_D = finished_BD[others].mean(dim=0)
    return (finished_BD[number] @ look_D - candidates_BD @ look_D).tolist()


def best(
    scores: Sequence[SourceScores], keep: int, least_structure: float, least_gone: float
) -> list[int]:
    """Number the candidates that reach both, the best product of both first, `keep` at most."""
    good = [
        n
        for n, score in enumerate(scores)
        if score.structure >= least_structure and score.gone >= least_gone
    ]
    good.sort(key=lambda n: -scores[n].structure * scores[n].gone)
    return good[:keep]
