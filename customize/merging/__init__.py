"""Merge adapters into one by what each does to every weight: the methods and where they live.

    inputs.py        open and check the adapters to merge, one layer in memory at a time
    released.py      tensors whose memory goes soon after they do
    concepts.py      the words and instructions of all inputs, clashes renamed
    linear.py        linear sums, and concat: sums that stay low-rank
    sparse.py        ties and dare: keep a part of every change
    constrained.py   the closed form that keeps what each input's instructions do
    solving.py       its part that all layers share, and the ridge
    texts.py         those instructions as the denoiser reads them
    combining.py     one method on one layer, and the cut to low rank
    job.py           what one merge works on; the base is opened only when it counts
    files.py         `merge`: adapter files in, one adapter file out
    heading.py       its header
    regression.py    least squares on captured inputs, for layers that read pictures too
    calls.py         what a denoiser was asked, and answered, while adapters edit
    distilling.py    one low-rank correction taught by such calls
    distilled.py     a merge corrected by what its inputs would have answered
    judged.py        merges that look at edits: regression, auto
    report.py        what was kept of every concept

A method is one of the frozen values below. `docs/merging.md` tells when to use which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Linear:
    """Sum the changes, each times its weight: naive addition."""


@dataclass(frozen=True)
class Concat:
    """Give the same sum exactly in low rank where the inputs are low-rank; ranks add up."""


@dataclass(frozen=True)
class Svd:
    """Sum, then keep the greatest singular values (see `Limits`; without any, all there are)."""


@dataclass(frozen=True)
class Ties:
    """Trim, elect signs, average those that agree (arXiv 2306.01708).

    `density` is the share of each layer's entries, the greatest, that stays of every input.
    """

    density: float = 0.2


@dataclass(frozen=True)
class Dare:
    """Drop entries at random and scale up the rest (arXiv 2311.03099), then sum or elect as Ties.

    `density` is the share that stays; `seed` and the files alone decide which.
    """

    density: float = 0.5
    seed: int = 0
    then: Literal["linear", "ties"] = "linear"


@dataclass(frozen=True)
class Constrained:
    """Keep what each input does to its own instructions (arXiv 2212.04488, section 3.3).

    Only for layers that read text alone; all others are merged by `otherwise`. `ridge` is how far
    constraints give way to one another; None chooses it by how alike the texts are (see
    `solving.Solver`).
    """

    ridge: float | None = None
    otherwise: Linear | Concat | Ties | Dare = field(default_factory=Linear)


Method = Linear | Concat | Svd | Ties | Dare | Constrained
