"""Second stage: edits to drawn and judged samples, each edit until enough of its pairs are good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from customize.scoring.judging.opinion import Opinion
from customize.scoring.networks.encoders import Clip
from customize.synthesis.filtering.choose import Candidate, Verdict, choose, first_verdict
from customize.synthesis.filtering.judge import PairJudge
from customize.synthesis.filtering.similarities import Similarities, similarities
from customize.synthesis.filtering.thresholds import Thresholds
from customize.synthesis.pictures.draw_pairs import DrawnPair, PairSettings, draw_pairs
from customize.synthesis.writing.rewrite import Rewrite


@dataclass(frozen=True)
class Ranges:
    """What is drawn anew for each sample, lowest and highest, and what is not."""

    guidance: tuple[float, float]
    self_until: tuple[float, float] = (0.1, 0.9)
    cross_until: tuple[float, float] = (0.0, 0.0)
    blend: bool = False

    def settings(self, seed: int, prompt: int, attempt: int) -> PairSettings:
        """Draw the settings of one sample; they depend on these three numbers alone."""
        rng = np.random.default_rng((seed, 11, prompt, attempt))
        return PairSettings(
            seed=int(rng.integers(2**31)),
            guidance=float(rng.uniform(*self.guidance)),
            self_until=float(rng.uniform(*self.self_until)),
            cross_until=float(rng.uniform(*self.cross_until)),
            blend=self.blend,
        )


@dataclass(frozen=True)
class Sample:
    """One drawn pair of a prompt, what was found of it, and whether it is kept."""

    prompt: int
    attempt: int
    pair: DrawnPair
    found: Similarities
    verdict: Verdict
    opinion: Opinion | None = None

    @property
    def name(self) -> str:
        """Name it by its numbers, the same in every run of a recipe."""
        return f"{self.prompt:06}_{self.attempt:03}"


@dataclass(frozen=True)
class _Drawn:
    prompt: int
    attempt: int
    pair: DrawnPair
    found: Similarities
    vector_D: Tensor
    opinion: Opinion | None

    def candidate(self, least: float) -> Candidate:
        liked = self.opinion is None or self.opinion.likes(least)
        return Candidate(self.found, self.vector_D, liked)


@dataclass(frozen=True)
class SampleStage:
    """Everything that draws and judges; `least` is what the judge's scores must reach, `mixed`
    draws in bfloat16 on a CPU.

    An edit is sampled `keep` times at once, until `keep` samples are good or there are `most`.
    """

    pipeline: Any
    steps: int
    size: tuple[int, int]
    at_once: int
    ranges: Ranges
    clip: Clip
    thresholds: Thresholds
    keep: int
    most: int
    alike: float
    seed: int
    judge: PairJudge | None = None
    least: float = 6.0
    mixed: bool = False

    def samples(
        self, edits: Sequence[tuple[int, Rewrite]], told: Callable[[int], None] = lambda _: None
    ) -> list[Sample]:
        """Sample a group of numbered edits; `told` hears how many pairs were drawn, as they are."""
        drawn: dict[int, list[_Drawn]] = {prompt: [] for prompt, _ in edits}
        while open_edits := [(p, r) for p, r in edits if self._open(drawn[p])]:
            wanted = [
                (prompt, rewrite, len(drawn[prompt]) + n)
                for prompt, rewrite in open_edits
                for n in range(min(self.keep, self.most - len(drawn[prompt])))
            ]
            for start in range(0, len(wanted), self.at_once):
                some = self.draw(wanted[start : start + self.at_once])
                for each in some:
                    drawn[each.prompt].append(each)
                told(len(some))
        return [sample for prompt, _ in edits for sample in self._judged(drawn[prompt])]

    def draw(self, wanted: Sequence[tuple[int, Rewrite, int]]) -> list[_Drawn]:
        """Draw (prompt, edit, attempt) together and look at them; the judge sees the good ones."""
        asked = [(r, self.ranges.settings(self.seed, p, a)) for p, r, a in wanted]
        pairs = draw_pairs(self.pipeline, asked, steps=self.steps, size=self.size, mixed=self.mixed)
        found, vectors_BD = similarities(self.clip, pairs)
        opinions: list[Opinion | None] = [None] * len(pairs)
        good = [n for n, each in enumerate(found) if self.thresholds.missed(each) is None]
        if self.judge is not None and good:
            for n, opinion in zip(good, self.judge.judge([pairs[n] for n in good]), strict=True):
                opinions[n] = opinion
        return [
            _Drawn(prompt, attempt, pairs[n], found[n], vectors_BD[n], opinions[n])
            for n, (prompt, _, attempt) in enumerate(wanted)
        ]

    def _open(self, drawn: Sequence[_Drawn]) -> bool:
        """Tell whether an edit has too few good samples yet, and samples left."""
        verdicts = [first_verdict(d.candidate(self.least), self.thresholds) for d in drawn]
        return len(drawn) < self.most and verdicts.count("kept") < self.keep

    def _judged(self, drawn: Sequence[_Drawn]) -> list[Sample]:
        candidates = [each.candidate(self.least) for each in drawn]
        verdicts = choose(candidates, self.thresholds, keep=self.keep, alike=self.alike)
        return [
            Sample(d.prompt, d.attempt, d.pair, d.found, verdict, d.opinion)
            for d, verdict in zip(drawn, verdicts, strict=True)
        ]
