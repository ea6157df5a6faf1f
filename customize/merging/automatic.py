"""Choose a way to merge by trying those that fit, each judged on edits of every concept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from customize.adapters.file import read_adapter
from customize.merging.judging import Judge, Verdict

MOST_LOST = 0.05
"""What a merge may lose of the base's own edits beyond what one of its adapters loses alone."""

Write = Callable[[Path], Sequence[Mapping[str, str]]]
"""Writes one candidate to a path and returns the words that were renamed, by adapter."""


@dataclass(frozen=True)
class Tried:
    """One way that was tried: what it is called, its file, its renamed words and its verdict."""

    name: str
    path: Path
    renamed: Sequence[Mapping[str, str]]
    verdict: Verdict


def try_all(
    candidates: Mapping[str, Write],
    judge: Judge,
    folder: Path,
    log: Callable[[str], None],
) -> list[Tried]:
    """Write every candidate into `folder` and judge it."""
    tried = list[Tried]()
    for name, write in candidates.items():
        path = folder / f"{name}.safetensors"
        renamed = write(path)
        verdict = judge.judge(read_adapter(path), renamed)
        log(f"{name}: {told(verdict)}")
        tried.append(Tried(name, path, renamed, verdict))
    return tried


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
