"""Merges that look at edits: `regression`, fitted to them, and `auto`, chosen by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from customize.errors import OutputExistsError
from customize.families.weights import reads_text_alone
from customize.merging import Constrained, Dare, Limits, Linear, Method, Ties
from customize.merging.automatic import Tried, Write, best_of, told, try_all
from customize.merging.files import Merged, merge_job, write_merged
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

    See `regression.regress` for `preserve` and `ridge`. Raises OutputExistsError.
    """
    _check_free(output, overwrite=overwrite)
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
        options={"preserve": preserve, "ridge": ridge, "otherwise": "linear"},
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

    See `automatic.best_of` for what is best. Raises OutputExistsError.
    """
    _check_free(output, overwrite=overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=".auto-") as folder:
        made: dict[str, Merged] = {}

        def write(name: str, candidate: Callable[[Path], Merged]) -> Write:
            def write_it(path: Path) -> Sequence[Mapping[str, str]]:
                made[name] = candidate(path)
                return made[name].renamed

            return write_it

        ways = candidates(stage, limits or Limits(), dtype)
        writers = {name: write(name, candidate) for name, candidate in ways.items()}
        tried = try_all(writers, judge, Path(folder), log)
        best = best_of(tried, judge.kept_alone())
        best.path.replace(output)
    log(f"chosen: {best.name} ({told(best.verdict)})")
    return Chosen(replace(made[best.name], path=output), best, tuple(tried))


def candidates(
    stage: Stage, limits: Limits, dtype: torch.dtype | None = None
) -> dict[str, Callable[[Path], Merged]]:
    """List the ways to merge a job that fit its kinds of layers, by name.

    `concat` and `svd` are not among them: they write what `linear` does in other ways.
    """
    job = stage.job

    def layerwise(method: Method, job: Job = job) -> Callable[[Path], Merged]:
        return lambda path: merge_job(job, path, method, limits=limits, dtype=dtype)

    if len(job.inputs) == 1:
        return {"linear": layerwise(Linear())}
    thinned = tuple(replace(item, weight=item.weight / len(job.inputs)) for item in job.inputs)
    found = {
        "linear": layerwise(Linear()),
        "average": layerwise(Linear(), replace(job, inputs=thinned)),
        "ties": layerwise(Ties()),
        "dare": layerwise(Dare()),
    }
    if any(reads_text_alone(job.family, layer.name) for layer in job.layers()):
        found["constrained"] = layerwise(Constrained())
    found["regression"] = lambda path: merge_by_regression(stage, path, limits=limits, dtype=dtype)
    return found


def _check_free(output: Path, *, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise OutputExistsError(
            f"output {output}: it is there already; expected a free name; choose another or allow "
            "replacing it (--overwrite, or overwrite=True)"
        )
