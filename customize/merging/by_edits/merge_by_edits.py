"""A merge that looks at edits from start to end: base opened, merged, judged, reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from customize.adapters.factors import Limits
from customize.adapters.file import read_adapter
from customize.adapters.header_facts import shareable
from customize.files.write import temporary_folder
from customize.merging.by_edits.choose import Chosen, losses, merge_automatically, rule
from customize.merging.by_edits.distillation import merge_by_distillation
from customize.merging.by_edits.editing_job import LEAST_EDITS, EditingJob, open_editing_job
from customize.merging.by_edits.regression import merge_by_regression
from customize.merging.by_edits.report import check_folder, write_merge_report
from customize.merging.by_edits.retention import Judge, Retention
from customize.merging.job import Job, open_job
from customize.merging.merge_files import Merged, check_output_file, merge_job
from customize.merging.methods import Distillation, MergeMethod, Regression

if TYPE_CHECKING:
    import torch

    from customize.scoring.items import Models


Way = MergeMethod | Regression | Distillation | Literal["auto"]


@dataclass(frozen=True)
class EditTrials:
    """How a merge looks at edits.

    `pairs` are folders by concept, for those whose recipe's pairs are not here; at most `most`
    edits of each count, and views of them up to `least` where a merge is judged. `report` is the
    folder for what was kept, `clip` the CLIP that scores it (None takes the base's own where it has
    one).
    """

    pairs: Mapping[str, Path] = field(default_factory=dict)
    most: int = 8
    least: int = LEAST_EDITS
    report: Path | None = None
    clip: str | None = None
    device: torch.device | str | None = None


def merge_by_edits(
    files: Sequence[Path],
    output: Path,
    way: Way,
    looking: EditTrials,
    *,
    weights: Sequence[float] | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    allow_other_base: bool = False,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> Merged:
    """Merge adapter files by a way that looks at edits, or by any, with a report.

    Other arguments are those of `merge`. Raises what it raises, and PairsError for concepts
    whose pairs are not found, ScoreError for an unusable CLIP.
    """
    if looking.report is not None:
        check_folder(looking.report, files, overwrite=overwrite)
    check_output_file(output, files, overwrite=overwrite)
    job = open_job(files, weights, base=base, allow_other_base=allow_other_base)
    sought: Any = {"most": looking.most, "least": looking.least}
    stage = open_editing_job(job, looking.pairs, device=looking.device, **sought)
    models = _models(job, looking)
    judge = stage.judge()
    options: Any = {"limits": limits, "dtype": dtype, "log": log}
    if looking.report is None:
        made, verdict, _ = _merged(stage, judge, way, output, overwrite=overwrite, **options)
        if verdict is not None:
            _tell_losses(verdict, way, log)
        return made
    with temporary_folder(output.parent) as aside:
        made, verdict, chosen = _merged(stage, judge, way, aside / output.name, **options)
        verdict = verdict or judge.judge(read_adapter(made.path), made.renamed)
        facts = _facts(stage, made, chosen)
        told_of = (looking.report, judge, verdict, job.files, facts, models)
        with write_merge_report(*told_of, overwrite=overwrite) as told:
            os.replace(made.path, output)  # last: it says that all is done
    log(told)
    _tell_losses(verdict, way, log)
    return replace(made, path=output)


def _merged(
    stage: EditingJob,
    judge: Judge,
    way: Way,
    output: Path,
    *,
    log: Callable[[str], None],
    **options: Any,
) -> tuple[Merged, Retention | None, Chosen | None]:
    """Merge by a way; returns what is known of the outcome already."""
    if way == "auto":
        chosen = merge_automatically(stage, judge, output, log=log, **options)
        return chosen.merged, chosen.best.verdict, chosen
    if isinstance(way, Regression):
        return merge_by_regression(stage, output, **asdict(way), **options), None, None
    if isinstance(way, Distillation):
        return merge_by_distillation(stage, output, way, **options), None, None
    return merge_job(stage.job, output, way, **options), None, None


def _tell_losses(verdict: Retention, way: Way, log: Callable[[str], None]) -> None:
    best_way = way == "auto" or isinstance(way, Distillation)
    for line in losses(verdict, best_way=best_way):
        log(line)


def _models(job: Job, looking: EditTrials) -> Models | None:
    """Open the CLIP of the report, before anything slow begins."""
    own = job.base.folder / "clip"
    name = looking.clip or (str(own) if own.is_dir() else None)
    if looking.report is None or name is None:
        return None
    from customize.scoring import open_models

    return open_models(name, device=looking.device)


def _facts(stage: EditingJob, merged: Merged, chosen: Chosen | None) -> dict[str, Any]:
    """Gather what a report says beside the figures."""
    facts: dict[str, Any] = {
        "base": shareable(stage.job.base_name),
        "method": merged.header.training["merged_by"],
        "options": merged.header.training["options"],
        "sampling": asdict(stage.sampling),
    }
    if chosen is not None:
        facts["rule"] = rule()
        facts["tried"] = {
            one.name: {
                "retention": {name: kept.retention for name, kept in one.verdict.concepts.items()},
                "base": one.verdict.base,
                "chosen": one.name == chosen.best.name,
            }
            for one in chosen.tried
        }
    return facts
