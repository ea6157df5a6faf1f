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
CHANGES = 2e-3
"""Mean squared change (pixels in 0..1) from which an edit of the base counts as one."""


@dataclass(frozen=True)
class Kept:
    """Mean share of the change that a concept's own adapter makes, and that the merged one does."""

    alone: float
    merged: float

    @property
    def retention(self) -> float | None:
        """Return merged over alone, 1 for all kept; None for a concept that was never learned."""
        return self.merged / self.alone if self.alone >= LEARNED else None


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
            concepts[asked.name] = Kept(
                mean_change(self.alone(asked.owner, asked), asked.examples),
                mean_change(outputs[asked.name], asked.examples),
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


def mean_change(outputs: Sequence[np.ndarray], examples: Sequence[Example]) -> float:
    """Average `change_made` over the examples whose target differs from the source, else 0."""
    made = [
        change_made(output, example.source_HWC / 255, example.target_HWC / 255)
        for output, example in zip(outputs, examples, strict=True)
        if (example.source_HWC != example.target_HWC).any()
    ]
    return float(np.mean(made)) if made else 0.0


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
