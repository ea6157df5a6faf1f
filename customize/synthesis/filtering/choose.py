"""Which of a prompt's drawn pairs are kept: good ones, best direction first, no two alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from customize.synthesis.filtering.similarities import Similarities
from customize.synthesis.filtering.thresholds import Criterion, Thresholds

Verdict = Criterion | Literal["kept", "enough", "near-duplicate", "judge"]
"""`kept`, or why not: a threshold missed, better ones were enough, one alike kept, the judge."""


@dataclass(frozen=True)
class Candidate:
    """A drawn pair as the filter sees it; `liked` is False where a judge spoke against it."""

    found: Similarities
    vector_D: Tensor
    liked: bool = True


def choose(
    candidates: Sequence[Candidate], thresholds: Thresholds, *, keep: int, alike: float
) -> list[Verdict]:
    """Judge the candidates of one prompt; second pictures with a cosine above `alike` are alike."""
    verdicts: list[Verdict] = [first_verdict(one, thresholds) for one in candidates]
    order = sorted(range(len(candidates)), key=lambda n: -candidates[n].found.direction)
    kept = list[int]()
    for n in order:
        if verdicts[n] != "kept":
            continue
        if any(float(candidates[n].vector_D @ candidates[k].vector_D) > alike for k in kept):
            verdicts[n] = "near-duplicate"
        elif len(kept) == keep:
            verdicts[n] = "enough"
        else:
            kept.append(n)
    return verdicts


def first_verdict(candidate: Candidate, thresholds: Thresholds) -> Verdict:
    """Judge a candidate by itself alone."""
    return thresholds.missed(candidate.found) or ("kept" if candidate.liked else "judge")
