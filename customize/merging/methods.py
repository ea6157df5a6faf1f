"""The ways to merge, each a frozen value; `docs/merging.md` tells when to use which."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Linear:
    """Sum the changes, each times its weight: naive addition.

    A layer's sum stays in low rank, exactly, while that is smaller than a full weight.
    """


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
    `constrained.constraints.Solver`).
    """

    ridge: float | None = None
    otherwise: Linear | Concat | Ties | Dare = field(default_factory=Linear)


MergeMethod = Linear | Concat | Svd | Ties | Dare | Constrained


@dataclass(frozen=True)
class Regression:
    """Fit every layer to what its inputs did to what they read; see `by_edits.regression`."""

    preserve: float = 0.1
    ridge: float = 1e-6


@dataclass(frozen=True)
class Distillation:
    """How the correction is taught: optimizer `steps`, and the weight of the base's own edits.

    `learning_rate` None is the median of the inputs' own, as their recipes tell, but not above
    1e-3; 1e-4 where none does.
    """

    steps: int = 300
    preserve: float = 4.0
    learning_rate: float | None = None
