"""Choose a way to merge by trying those that fit, each judged on edits of every concept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from customize.adapters.file import read_adapter
from customize.merging.files import Merged
from customize.merging.judging import Judge, Verdict

MOST_LOST = 0.05
"""What a merge may lose of the base's own edits beyond what one of its adapters loses alone."""

ENOUGH = 0.95
"""A merge whose concepts all keep this much needs no correction."""


@dataclass(frozen=True)
class Tried:
    """One way that was tried: what it is called, what it wrote, and its verdict."""

    name: str
    merged: Merged
    verdict: Verdict


def try_one(
    name: str,
    write: Callable[[Path], Merged],
    judge: Judge,
    folder: Path,
    log: Callable[[str], None],
) -> Tried:
    """Write a candidate into `folder` and judge it."""
    merged = write(folder / f"{name}.safetensors")
    verdict = judge.judge(read_adapter(merged.path), merged.renamed)
    log(f"{name}: {told(verdict)}")
    return Tried(name, merged, verdict)


def best_of(tried: Sequence[Tried], kept_alone: Sequence[float | None]) -> Tried:
    """Choose the way whose worst concept keeps most, among those that spare the base.

    See `rule` for what sparing is. Where none does, worst concept times base decides.
    """
    floor = min((kept for kept in kept_alone if kept is not None), default=0.0) - MOST_LOST
    sparing = [one for one in tried if _base(one.verdict) >= floor]
    if sparing:
        return max(sparing, key=lambda one: (one.verdict.worst, _base(one.verdict)))
    return max(tried, key=lambda one: one.verdict.worst * _base(one.verdict))


def rule() -> str:
    """Say how `best_of` chooses."""
    return (
        "the way whose worst concept keeps most, among those that keep as much of the base's own "
        f"edits as the adapter that alone keeps least, less {100 * MOST_LOST:.0f} points"
    )


def told(verdict: Verdict) -> str:
    """Say a verdict in a line.

    >>> from customize.merging.judging import Kept
    >>> told(Verdict({"my_dog": Kept(0.5, 0.45), "blank": Kept(0.0, 0.0)}, 0.97, {}, []))
    "my_dog 90 %, blank never learned, the base's own edits 97 %"
    """
    parts = list[str]()
    for name, kept in verdict.concepts.items():
        share = kept.retention
        parts.append(
            f"{name} {100 * share:.0f} %" if share is not None else f"{name} never learned"
        )
    if verdict.base is not None:
        parts.append(f"the base's own edits {100 * verdict.base:.0f} %")
    return ", ".join(parts)


def _base(verdict: Verdict) -> float:
    return 1.0 if verdict.base is None else verdict.base
