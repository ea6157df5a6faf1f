"""Merges that look at edits: `regression`, fitted to them, and `auto`, chosen by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from customize.adapters.factors import Limits
from customize.adapters.file import read_adapter
from customize.families.loading.layer_weights import reads_text_alone
from customize.merging import Constrained, Dare, Linear, Method, Ties
from customize.merging.automatic import ENOUGH, Tried, best_of, told, try_one
from customize.merging.distilled import Distillation, merge_by_distillation
from customize.merging.files import Merged, check_free, merge_job, write_merged
from customize.merging.heading import options_of
from customize.merging.job import Job
from customize.merging.regressing import Regressing
from customize.merging.regression import PRESERVE, RIDGE

if TYPE_CHECKING:
    import torch

    from customize.merging.evidence import Evidence
    from customize.merging.judging import Judge
    from customize.merging.stage import Stage

Log = Callable[[str], None]


@dataclass(frozen=True)
class Chosen:
    """What `auto` wrote, the way that was best, and all that were tried."""

    merged: Merged
    best: Tried
    tried: tuple[Tried, ...]


def merge_by_regression(
    stage: Stage,
    output: Path,
    *,
    evidence: Evidence | None = None,
    limits: Limits | None = None,
    preserve: float = PRESERVE,
    ridge: float = RIDGE,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge the stage's job by least squares on captured inputs and write `output`.

    See `regression.regress` for `preserve` and `ridge`. Raises MergeError and OutputExistsError.
    """
    check_free(output, stage.job.files, overwrite=overwrite)
    regressing = Regressing(
        stage.job,
        evidence or stage.evidence(),
        limits or Limits(),
        preserve=preserve,
        ridge=ridge,
    )
    merged = write_merged(
        stage.job,
        regressing,
        output,
        method="regression",
        options={
            **{"preserve": preserve, "ridge": ridge, "otherwise": "linear"},
            **options_of(limits or Limits()),
        },
        dtype=dtype,
        overwrite=overwrite,
    )
    return replace(merged, otherwise=tuple(regressing.otherwise))


def merge_automatically(
    stage: Stage,
    judge: Judge,
    output: Path,
    *,
    limits: Limits | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    log: Log = print,
) -> Chosen:
    """Try every way that fits the stage's job, each judged, and write the best to `output`.

    Where all leave a concept behind the best is corrected by distillation. See `automatic.best_of`
    for what is best. Raises MergeError and OutputExistsError.
    """
    check_free(output, stage.job.files, overwrite=overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    options: Any = {"limits": limits, "dtype": dtype}
    with TemporaryDirectory(dir=output.parent, prefix=".auto-") as name:
        folder, tried = Path(name), list[Tried]()
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
    log(f"chosen: {best.name} ({told(best.verdict)})")
    return Chosen(replace(best.merged, path=output), best, tuple(tried))


def candidates(
    job: Job, limits: Limits, dtype: torch.dtype | None = None
) -> dict[str, Callable[[Path], Merged]]:
    """List the ways to merge a job, without edits, that fit its kinds of layers, by name.

    `concat` and `svd` are not among them: they write what `linear` does in other ways.
    """

    def by(method: Method, job: Job = job) -> Callable[[Path], Merged]:
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
    if any(reads_text_alone(job.family, layer.name) for layer in job.layers()):
        found["constrained"] = by(Constrained())
    return found
