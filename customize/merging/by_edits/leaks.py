"""Interference: how much of one concept shows where another was asked for, or where none was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from customize.merging.by_edits.retention import CHANGES, Judge, Retention
from customize.merging.by_edits.trial_edits import TrialEdits
from customize.shapes import Example

OWN = "the base's own"
"""How tables call the edits that no concept was asked for."""

Leaks = Mapping[tuple[str, str], float | None]
"""The share of a change that leaks, by (edits asked for, concept that shows)."""


def find_leaks(judge: Judge, verdict: Retention) -> Leaks:
    """Measure how much each concept leaks into every other's edits and into the base's own.

    None where a concept does nothing to those sources, as a dog does where there is none.
    """
    found: dict[tuple[str, str], float | None] = {}
    for asked in judge.asked:
        apart = judge.alone(asked.owner, asked)
        for other in judge.asked:
            if other.owner != asked.owner:
                found[asked.name, other.name] = _leak(
                    judge, other, asked.examples, apart, verdict.outputs[asked.name]
                )
    for other in judge.asked:
        found[OWN, other.name] = _leak(judge, other, judge.own, judge.before(), verdict.own)
    return found


def leak(
    examples: Sequence[Example],
    apart: Sequence[np.ndarray],
    together: Sequence[np.ndarray],
    changed: Sequence[np.ndarray],
) -> float | None:
    """Return the share of the change source -> `changed` found in the change apart -> together.

    It is the least-squares factor s of together - apart = s (changed - source) over all edits: 0
    where nothing leaks, 1 where the other concept is there in full, negative where it is undone.
    None where `changed` hardly differs from the sources.
    """
    shared, whole, pixels = 0.0, 0.0, 0
    for example, alone, merged, other in zip(examples, apart, together, changed, strict=True):
        change = other - example.source_HWC / 255
        shared += float(((merged - alone) * change).sum())
        whole += float(np.square(change).sum())
        pixels += change.size
    return shared / whole if whole > CHANGES * pixels else None


def _leak(
    judge: Judge,
    other: TrialEdits,
    examples: Sequence[Example],
    apart: Sequence[np.ndarray],
    together: Sequence[np.ndarray],
) -> float | None:
    """Carry out the other concept's instructions on these sources, by its own adapter."""
    texts = [example.instruction for example in other.examples]
    asked = [
        replace(example, instruction=texts[index % len(texts)])
        for index, example in enumerate(examples)
    ]
    changed = judge.edit(judge.adapters[other.owner], asked)
    return leak(examples, apart, together, changed)
