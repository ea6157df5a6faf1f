"""The base opened for editing, with the edits that a job's merges are fitted to and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.families.known_edits import known_edits
from customize.families.sampling_defaults import Sampling, sampling_of
from customize.merging.by_edits.layer_inputs import Evidence
from customize.merging.by_edits.more_views import with_more_views
from customize.merging.by_edits.retention import Judge
from customize.merging.by_edits.trial_edits import TrialEdits, find_asked, own_edits
from customize.merging.job import Job
from customize.shapes import Example

if TYPE_CHECKING:
    import torch

OWN_EDITS, GENERIC = 16, 48
LEAST_EDITS = 16
"""Edits that each concept of a merge is judged by, views of its pairs among them."""


@dataclass(frozen=True)
class EditingJob:
    """A job with its base's pipeline, the pairs it fits to and, held out where known, judges by.

    `generic` are edits that the base knows by itself, of the concepts' sources.
    """

    job: Job
    pipeline: Any
    sampling: Sampling
    trained: tuple[TrialEdits, ...]
    judged: tuple[TrialEdits, ...]
    generic: tuple[Example, ...]
    own: tuple[Example, ...]

    def judge(self) -> Judge:
        """Make the judge of this job's merges."""
        adapters = [item.adapter for item in self.job.inputs]
        return Judge(self.pipeline, self.sampling, adapters, self.judged, self.own)

    def evidence(self) -> Evidence:
        """Make ready to capture what every changed layer reads."""
        return Evidence(
            self.pipeline,
            self.sampling,
            [item.adapter for item in self.job.inputs],
            self.trained,
            self.generic,
            [layer.name for layer in self.job.layers()],
        )


def open_editing_job(
    job: Job,
    pairs: Mapping[str, Path],
    *,
    device: torch.device | str | None = None,
    most: int = 8,
    least: int = LEAST_EDITS,
) -> EditingJob:
    """Find the edits, then open the base; `pairs` are folders by concept, where given.

    At most `most` edits of each concept count; views of them, up to `least`, are judged by. Raises
    PairsError, BaseModelError.
    """
    headers = [item.header for item in job.inputs]
    names = [[taught.name for taught in own] for own in job.vocabulary.by_input]
    trained, judged = (
        find_asked(headers, pairs, job.base, held_out=held_out, names=names, most=most)
        for held_out in (False, True)
    )
    from customize.editing import Editor

    pipeline = Editor.from_base(job.base_name, device=device).pipeline
    pipeline.set_progress_bar_config(disable=True)
    known = known_edits(job.base)
    return EditingJob(
        job=job,
        pipeline=pipeline,
        sampling=sampling_of(job.base),
        trained=tuple(trained),
        judged=tuple(with_more_views(one, least) for one in judged),
        generic=tuple(own_edits(trained, known, GENERIC, seed=0)),
        own=tuple(own_edits(judged, known, OWN_EDITS, seed=1)),
    )
