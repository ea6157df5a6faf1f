"""Merge by distillation: a merge of layers first, then one correction taught by all adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from customize.adapters.apply import apply_adapters
from customize.adapters.deltas import layers, weight_delta
from customize.adapters.factors import Limits
from customize.adapters.file import AdapterFile, read_adapter
from customize.editing.sample import batches, sample
from customize.families import denoiser_of
from customize.families.words import replace_words
from customize.files.write import temporary_folder
from customize.merging.by_edits.correction import Course, Lesson, distill, squared_distance
from customize.merging.by_edits.layer_inputs import STEPS
from customize.merging.by_edits.recorded_calls import RecordedCall, recorded, with_texts_of
from customize.merging.by_edits.trial_edits import requests_of, varied
from customize.merging.header import method_options
from customize.merging.inputs import placeholder
from customize.merging.layers import MergedChange, MergedLayer, cut
from customize.merging.merge_files import (
    Combine,
    Merged,
    check_output_file,
    merge_job,
    write_merged,
)
from customize.merging.methods import Constrained, Distillation, Linear

if TYPE_CHECKING:
    from customize.merging.by_edits.editing_job import EditingJob
    from customize.merging.job import Job
    from customize.shapes import Example


RATE, FASTEST = 1e-4, 1e-3
AT_ONCE = 8


def merge_by_distillation(
    stage: EditingJob,
    output: Path,
    way: Distillation,
    *,
    start: AdapterFile | None = None,
    limits: Limits | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Correct `start`, the stage's job merged in some way, and write `output`.

    None starts from `constrained` where layers read text alone, else from addition. One adapter has
    nothing to be reconciled with and stays as it is. Raises MergeError and OutputExistsError.
    """
    check_output_file(output, stage.job.files, overwrite=overwrite)
    if start is None:
        with temporary_folder(output.parent) as folder:
            path = folder / "start.safetensors"
            start = read_adapter(merge_job(stage.job, path, _closed_form(stage.job)).path)
            return merge_by_distillation(
                *(stage, output, way),
                start=start,
                limits=limits,
                dtype=dtype,
                overwrite=overwrite,
            )
    course = Course(steps=way.steps, learning_rate=way.learning_rate or _rate(stage.job))
    several = len(stage.job.inputs) > 1
    correction = _correction(stage, start, course, way.preserve) if several else {}
    return write_merged(
        stage.job,
        _adding(start, correction, limits or Limits()),
        output,
        method="distill",
        options={
            **asdict(way),
            "learning_rate": course.learning_rate,
            "start": start.header.training["merged_by"],
            **method_options(limits or Limits()),
        },
        dtype=dtype,
        overwrite=overwrite,
    )


def _correction(
    stage: EditingJob, start: AdapterFile, course: Course, preserve: float
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Learn the factors (down, up) that every layer of the denoiser lacks."""
    lessons = _lessons(stage, start, preserve)
    names = [layer.name for layer in stage.job.layers() if layer.name.startswith("denoiser.")]
    with _applied(stage.pipeline, (start, 1.0)):
        return distill(denoiser_of(stage.pipeline), names, lessons, course)


def _lessons(stage: EditingJob, start: AdapterFile, preserve: float) -> list[Lesson]:
    """Record what each input makes of its own instructions, and the base of its own edits."""
    denoiser, renamed = denoiser_of(stage.pipeline), stage.job.vocabulary.renamed
    found = list[Lesson]()
    inputs = tqdm(stage.job.inputs, "recording", unit="adapter", disable=None)
    for owner, item in enumerate(inputs):
        examples = varied(stage.trained, owner)
        calls = _calls(stage, (item.adapter, item.weight), examples, start, renamed[owner])
        found.append(Lesson(calls, squared_distance(denoiser, calls)))
    typical = fmean(one.change for one in found)
    own = _calls(stage, None, stage.generic, start, {})
    return [*found, Lesson(own, typical, preserve)]


def _calls(
    stage: EditingJob,
    teacher: tuple[AdapterFile, float] | None,
    examples: Sequence[Example],
    start: AdapterFile,
    renamed: Mapping[str, str],
) -> list[RecordedCall]:
    """Record edits by a teacher, the base where there is none; texts are as the merge reads them.

    Texts only differ from the teacher's own where text encoders were taught.
    """
    pipeline, found = stage.pipeline, list[RecordedCall]()
    denoiser = denoiser_of(pipeline)
    sampling = replace(stage.sampling, steps=min(stage.sampling.steps, STEPS))
    for batch in batches(pipeline, requests_of(examples), sampling, AT_ONCE):
        asked = [request for _, request in batch]
        with _applied(pipeline, teacher), recorded(denoiser) as calls:
            sample(pipeline, asked, sampling, AT_ONCE)
        if any(layer.name.startswith("text_encoder") for layer in stage.job.layers()):
            again = [
                replace(request, instruction=replace_words(request.instruction, renamed))
                for request in asked
            ]
            with _applied(pipeline, (start, 1.0)), recorded(denoiser) as read:
                sample(pipeline, again, replace(sampling, steps=1), AT_ONCE)
            calls = with_texts_of(calls, read)
        found += calls
    return found


def _adding(
    start: AdapterFile, correction: Mapping[str, tuple[Tensor, Tensor]], limits: Limits
) -> Combine:
    """Return what makes each layer's change: that of `start` and, where there is one, what was
    learned.
    """
    changed = frozenset(layers(start))

    def add(layer: MergedLayer) -> MergedChange:
        full = torch.zeros(layer.shape)
        if layer.name in changed:
            full += weight_delta(start, layer.name, placeholder(layer.shape))
        if layer.name in correction:
            down, up = correction[layer.name]
            full += (up.flatten(1) @ down.flatten(1)).view(layer.shape)
        return cut(MergedChange(full=full), limits) if limits.cuts else MergedChange(full=full)

    return add


def _closed_form(job: Job) -> Constrained | Linear:
    """Choose what to start from."""
    alone = any(job.profile.reads_text_alone(layer.name) for layer in job.layers())
    return Constrained() if alone and len(job.inputs) > 1 else Linear()


def _rate(job: Job) -> float:
    """Take the inputs' own learning rate, the median of those that their recipes tell."""
    found = [item.header.recipe.get("train", {}).get("learning_rate") for item in job.inputs]
    rates = [rate for rate in found if rate is not None and rate > 0]
    return min(median(rates), FASTEST) if rates else RATE


@contextmanager
def _applied(pipeline: Any, adapter: tuple[AdapterFile, float] | None) -> Iterator[None]:
    applied = apply_adapters(pipeline, [adapter] if adapter else [])
    try:
        yield
    finally:
        applied.remove()
