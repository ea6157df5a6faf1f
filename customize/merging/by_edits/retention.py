"""How much of each concept a merged adapter still does, and how much of the base's own edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from customize.adapters.apply import apply_adapters
from customize.adapters.file import AdapterFile
from customize.editing.sample import sample
from customize.families.sampling_defaults import Sampling
from customize.merging.by_edits.trial_edits import TrialEdits, requests_of, with_new_words
from customize.shapes import Example

LEARNED = 0.05
"""A concept whose own adapter makes less than this share of the change was never learned."""
DRAWS = 1000
"""Times that pairs are drawn anew for an interval."""
CHANGES = 2e-3
"""Mean squared change (pixels in 0..1) from which an edit of the base counts as one."""


@dataclass(frozen=True)
class Kept:
    """Mean share of the change that a concept's own adapter makes, and that the merged one does.

    `interval` is where the retention lies 19 times of 20, None where one pair cannot tell.
    """

    alone: float
    merged: float
    interval: tuple[float, float] | None = None

    @property
    def retention(self) -> float | None:
        """Return merged over alone, 1 for all kept; None for a concept that was never learned."""
        return self.merged / self.alone if self.alone >= LEARNED else None

    def __str__(self) -> str:
        """Write the retention and its interval, in percent.

        >>> print(Kept(0.8, 0.6, (0.7, 0.81)))
        75 % (70 to 81)
        """
        if self.retention is None:
            return "never learned"
        around = "" if self.interval is None else " ({:.0f} to {:.0f})"
        low, high = self.interval or (0, 0)
        return f"{100 * self.retention:.0f} %" + around.format(100 * low, 100 * high)


@dataclass(frozen=True)
class Retention:
    """What a merge kept: of each concept by name, and of the base's own edits (1 for all).

    `outputs` are the merged edits of each concept, `own` those of the base's own, (H, W, 3) float
    in 0..1.
    """

    concepts: Mapping[str, Kept]
    base: float | None
    outputs: Mapping[str, Sequence[np.ndarray]]
    own: Sequence[np.ndarray]

    @property
    def worst(self) -> float:
        """Return the retention of the concept that lost most, 0 where none was ever learned."""
        found = [kept.retention for kept in self.concepts.values()]
        return min((value for value in found if value is not None), default=0.0)


class Judge:
    """A base, adapters and the edits they are judged by; edits that never change are made once."""

    def __init__(
        self,
        pipeline: Any,
        sampling: Sampling,
        adapters: Sequence[AdapterFile],
        asked: Sequence[TrialEdits],
        own: Sequence[Example],
        *,
        at_once: int = 8,
        seed: int = 0,
    ) -> None:
        """Take over an unchanged pipeline; `own` are edits that are the base's own."""
        self.pipeline, self.sampling = pipeline, sampling
        self.adapters, self.asked, self.own = tuple(adapters), tuple(asked), tuple(own)
        self._at_once, self._seed = at_once, seed
        self._made: dict[tuple[int, str], list[np.ndarray]] = {}
        self._kept_alone = list[float | None]()

    def alone(self, owner: int, asked: TrialEdits) -> list[np.ndarray]:
        """Return one adapter's edits of a concept, its own or another's."""
        key = (owner, asked.name)
        if key not in self._made:
            self._made[key] = self.edit(self.adapters[owner], asked.examples)
        return self._made[key]

    def before(self) -> list[np.ndarray]:
        """Return the base's own edits, made by the base."""
        key = (-1, "")
        if key not in self._made:
            self._made[key] = self.edit(None, self.own)
        return self._made[key]

    def edit(self, adapter: AdapterFile | None, examples: Sequence[Example]) -> list[np.ndarray]:
        """Edit with one adapter, or with the base alone; (H, W, 3) float in 0..1 each."""
        applied = apply_adapters(self.pipeline, [] if adapter is None else [(adapter, 1.0)])
        try:
            requests = requests_of(examples, self._seed)
            outputs = sample(self.pipeline, requests, self.sampling, self._at_once)
        finally:
            applied.remove()
        return [np.nan_to_num(output_HWC) for output_HWC in outputs]

    def kept_alone(self) -> list[float | None]:
        """Return what each adapter alone keeps of the base's own edits."""
        if not self._kept_alone:
            for adapter in self.adapters:
                after = self.edit(adapter, self.own)
                self._kept_alone.append(kept_of_base(self.own, self.before(), after))
        return self._kept_alone

    def judge(self, merged: AdapterFile, renamed: Sequence[Mapping[str, str]] = ()) -> Retention:
        """Make every edit with `merged`; `renamed` has each adapter's words as they are called now.

        Wherever edits are compared they start from the same noise.
        """
        concepts, outputs = dict[str, Kept](), dict[str, Sequence[np.ndarray]]()
        for asked in self.asked:
            now = with_new_words(asked, renamed[asked.owner]) if renamed else asked
            outputs[asked.name] = self.edit(merged, now.examples)
            concepts[asked.name] = kept_of(
                asked, self.alone(asked.owner, asked), outputs[asked.name]
            )
        own = self.edit(merged, self.own)
        return Retention(concepts, kept_of_base(self.own, self.before(), own), outputs, own)


def change_made(output: np.ndarray, source: np.ndarray, target: np.ndarray) -> float:
    """Return 1 - |output - target|^2 / |source - target|^2, at least 0; pixels in 0..1.

    1 is the target itself, 0 is no nearer to it than the source. Needs a target unlike the source.
    """
    distance = float(np.square(source - target).sum())
    assert distance > 0, "an edit that changes nothing"
    return max(0.0, 1 - float(np.square(output - target).sum()) / distance)


def kept_of(asked: TrialEdits, alone: Sequence[np.ndarray], merged: Sequence[np.ndarray]) -> Kept:
    """Compare a concept's edits by its own adapter and by the merged one; (H, W, 3) in 0..1 each.

    Examples whose target is the source do not count. The interval is a bootstrap's over pairs, as
    views of one pair are alike.
    """
    rows = [
        (pair, *(change_made(output, source, target) for output in (one, other)))
        for pair, one, other, example in zip(
            asked.pair_of or range(len(alone)), alone, merged, asked.examples, strict=True
        )
        for source, target in [(example.source_HWC / 255, example.target_HWC / 255)]
        if (source != target).any()
    ]
    if not rows:
        return Kept(0.0, 0.0)
    rows_B3 = np.array(rows)
    _, one, other = rows_B3.mean(axis=0)
    return Kept(float(one), float(other), _interval(rows_B3[:, 1:], rows_B3[:, 0]))


def _interval(made_B2: np.ndarray, pair_B: np.ndarray) -> tuple[float, float] | None:
    """Draw pairs with replacement, and return the middle 95 % of merged over alone."""
    groups = [made_B2[pair_B == pair] for pair in np.unique(pair_B)]
    if len(groups) == 1:
        return None
    rng = np.random.default_rng(0)
    means_D2 = np.stack(
        [
            np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]).mean(0)
            for _ in range(DRAWS)
        ]
    )
    ratio_D = means_D2[:, 1] / np.maximum(means_D2[:, 0], LEARNED)
    low, high = np.quantile(ratio_D, (0.025, 0.975))
    return float(low), float(high)


def kept_of_base(
    examples: Sequence[Example], before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> float | None:
    """Return the mean share of the base's own edits that is still made; None where it makes none.

    What the base answers is the target. Its answers that hardly change the source do not count.
    """
    kept = [
        change_made(new, example.source_HWC / 255, old)
        for example, old, new in zip(examples, before, after, strict=True)
        if np.square(old - example.source_HWC / 255).mean() > CHANGES
    ]
    return float(np.mean(kept)) if kept else None
