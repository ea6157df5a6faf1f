"""Choose a way to merge by trying those that fit, each judged on edits of every concept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.adapters.factors import Limits
from customize.adapters.file import read_adapter
from customize.files.write import temporary_folder
from customize.merging.by_edits.distillation import merge_by_distillation
from customize.merging.by_edits.regression import merge_by_regression
from customize.merging.by_edits.retention import Judge, Retention
from customize.merging.job import Job
from customize.merging.merge_files import Merged, check_output_file, merge_job
from customize.merging.methods import Constrained, Dare, Distillation, Linear, MergeMethod, Ties

if TYPE_CHECKING:
    import torch

    from customize.merging.by_edits.editing_job import EditingJob


MOST_LOST = 0.05
"""What a merge may lose of the base's own edits beyond what one of its adapters loses alone."""
ENOUGH = 0.95
MOST_FORGOTTEN = 0.1
"""Share of a concept's change from which its loss is told, with what to do."""
"""A merge whose concepts all keep this much needs no correction."""


@dataclass(frozen=True)
class Tried:
    """One way that was tried: what it is called, what it wrote, and its verdict."""

    name: str
    merged: Merged
    verdict: Retention


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
    log(f"{name}: {verdict_line(verdict)}")
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


def verdict_line(verdict: Retention) -> str:
    """Say a verdict in a line.

    >>> from customize.merging.by_edits.retention import Kept
    >>> verdict_line(Retention({"my_dog": Kept(0.5, 0.45), "blank": Kept(0.0, 0.0)}, 0.97, {}, []))
    "my_dog 90 %, blank never learned, the base's own edits 97 %"
    """
    parts = list[str]()
    for name, kept in verdict.concepts.items():
        parts.append(f"{name} {kept}")
    if verdict.base is not None:
        parts.append(f"the base's own edits {100 * verdict.base:.0f} %")
    return ", ".join(parts)


def losses(verdict: Retention, *, best_way: bool) -> list[str]:
    """Name the concepts that lost much in a merge, and say what to run instead.

    After the `best_way` there is, that is no merge.

    >>> from customize.merging.by_edits.retention import Kept
    >>> print(*losses(Retention({"my_dog": Kept(0.5, 0.4)}, 0.97, {}, []), best_way=False))
    my_dog keeps 80 %: more than a tenth is lost; try --method auto, which tries all ways
    """
    cure = "teach the concepts together, in one recipe" if best_way else _OTHER_WAYS
    return [
        f"{name} keeps {kept}: more than a tenth is lost; {cure}"
        for name, kept in verdict.concepts.items()
        if kept.retention is not None and kept.retention < 1 - MOST_FORGOTTEN
    ]


_OTHER_WAYS = "try --method auto, which tries all ways"


def _base(verdict: Retention) -> float:
    return 1.0 if verdict.base is None else verdict.base


Log = Callable[[str], None]


@dataclass(frozen=True)
class Chosen:
    """What `auto` wrote, the way that was best, and all that were tried."""

    merged: Merged
    best: Tried
    tried: tuple[Tried, ...]


def merge_automatically(
    stage: EditingJob,
    judge: Judge,
    output: Path,
    *,
    limits: Limits | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    log: Log = print,
) -> Chosen:
    """Try every way that fits the stage's job, each judged, and write the best to `output`.

    Where all leave a concept behind the best is corrected by distillation. See `best_of`
    for what is best. Raises MergeError and OutputExistsError.
    """
    check_output_file(output, stage.job.files, overwrite=overwrite)
    options: Any = {"limits": limits, "dtype": dtype}
    with temporary_folder(output.parent) as folder:
        tried = list[Tried]()
        ways = candidates(stage.job, limits or Limits(), dtype)
        if len(stage.job.inputs) > 1:
            ways["regression"] = partial(merge_by_regression, stage, **options)
        for way, write in ways.items():
            tried.append(try_one(way, write, judge, folder, log))
        best = best_of(tried, judge.kept_alone())
        if best.verdict.worst < ENOUGH and len(stage.job.inputs) > 1:
            start = read_adapter(best.merged.path)
            correct = partial(merge_by_distillation, stage, way=Distillation(), start=start)
            tried.append(try_one("distill", partial(correct, **options), judge, folder, log))
            best = best_of(tried, judge.kept_alone())
        best.merged.path.replace(output)
    log(f"chosen: {best.name} ({verdict_line(best.verdict)})")
    return Chosen(replace(best.merged, path=output), best, tuple(tried))


def candidates(
    job: Job, limits: Limits, dtype: torch.dtype | None = None
) -> dict[str, Callable[[Path], Merged]]:
    """List the ways to merge a job, without edits, that fit its kinds of layers, by name.

    `concat` and `svd` are not among them: they write what `linear` does in other ways.
    """

    def by(method: MergeMethod, job: Job = job) -> Callable[[Path], Merged]:
        return lambda path: merge_job(job, path, method, limits=limits, dtype=dtype)

    if len(job.inputs) == 1:
        return {"linear": by(Linear())}
    thinned = tuple(replace(item, weight=item.weight / len(job.inputs)) for item in job.inputs)
    found = {
        "linear": by(Linear()),
        "average": by(Linear(), replace(job, inputs=thinned)),
        "ties": by(Ties()),
        "dare": by(Dare()),
    }
    if any(job.profile.reads_text_alone(layer.name) for layer in job.layers()):
        found["constrained"] = by(Constrained())
    return found
