"""Distillation: what is recorded, what is learned from it, and the merge that comes of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from builders.merges import judged_world

from customize.adapters.apply import apply_adapters
from customize.adapters.deltas import layers
from customize.adapters.factors import Limits
from customize.adapters.file import AdapterFile, read_adapter
from customize.editing.sample import sample
from customize.errors import OutputExistsError
from customize.merging.by_edits.correction import Course, Lesson, distill, squared_distance
from customize.merging.by_edits.distillation import merge_by_distillation
from customize.merging.by_edits.editing_job import EditingJob, open_editing_job
from customize.merging.by_edits.recorded_calls import RecordedCall, answers, recorded, with_texts_of
from customize.merging.by_edits.trial_edits import requests_of
from customize.merging.job import open_job
from customize.merging.merge_files import merge_job
from customize.merging.methods import Distillation, Linear


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = judged_world(tmp_path_factory.mktemp("world"))
    with chdir(folder):  # of an adapter's places only those in the working folder are followed
        yield folder


@pytest.fixture(scope="module")
def stage(world: Path) -> EditingJob:
    files = [world / "my_dog.safetensors", world / "look.safetensors"]
    return open_editing_job(open_job(files), {}, device="cpu", most=2)


def edits(stage: EditingJob, owner: int) -> list[RecordedCall]:
    """Record what one adapter answers to its own instruction."""
    adapter = stage.job.inputs[owner].adapter
    applied = apply_adapters(stage.pipeline, [(adapter, 1.0)])
    with recorded(stage.pipeline.unet) as calls:
        asked = requests_of(stage.trained[owner].examples)
        sample(stage.pipeline, asked, stage.sampling, at_once=2)
    applied.remove()
    return calls


def missed(
    stage: EditingJob, adapter: AdapterFile, lessons: Sequence[Sequence[RecordedCall]]
) -> float:
    """Sum what a merged adapter misses of all recorded answers, squared."""
    applied = apply_adapters(stage.pipeline, [(adapter, 1.0)])
    off = sum(squared_distance(stage.pipeline.unet, calls) for calls in lessons)
    applied.remove()
    return off


def test_recorded_calls_are_answered_alike_when_asked_again(stage: EditingJob) -> None:
    calls = edits(stage, 0)
    assert len(calls) == 3 * stage.sampling.steps * len(stage.trained[0].examples)
    assert calls[0].texts is not calls[1].texts
    assert calls[0].texts["encoder_hidden_states"] is calls[6].texts["encoder_hidden_states"]
    applied = apply_adapters(stage.pipeline, [(stage.job.inputs[0].adapter, 1.0)])
    again = answers(stage.pipeline.unet, calls, at_once=5)
    applied.remove()
    for call, answer_Chw in zip(calls, again, strict=True):
        assert torch.allclose(call.answer_Chw, answer_Chw, atol=1e-5)
    assert squared_distance(stage.pipeline.unet, calls) > 1e-6, (
        "without the adapter it answers otherwise"
    )


def test_texts_are_taken_over_for_every_step() -> None:
    calls = [
        RecordedCall(torch.zeros(1), torch.tensor(i), {"t": torch.zeros(1)}, torch.zeros(1))
        for i in range(6)
    ]
    others = [
        RecordedCall(
            torch.zeros(1), torch.tensor(9), {"t": torch.full((1,), float(i))}, torch.zeros(1)
        )
        for i in range(3)
    ]
    changed = with_texts_of(calls, others)
    assert [float(call.texts["t"]) for call in changed] == [0, 1, 2, 0, 1, 2]
    assert [int(call.level) for call in changed] == list(range(6))


def test_a_correction_learns_the_answers_and_leaves_the_denoiser_as_it_was(
    stage: EditingJob,
) -> None:
    denoiser, calls = stage.pipeline.unet, edits(stage, 0)
    before = {name: p.clone() for name, p in denoiser.named_parameters()}
    wanted = {name: p.requires_grad for name, p in denoiser.named_parameters()}
    names = [layer.name for layer in stage.job.layers()]
    lessons = [Lesson(calls, squared_distance(denoiser, calls))]
    learned = distill(denoiser, names, lessons, Course(steps=8, learning_rate=1e-2, rank=4))
    after = dict(denoiser.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name: p.requires_grad for name, p in after.items()} == wanted
    assert learned.keys() == set(names)
    assert all(down.shape[0] == up.shape[1] == 4 for down, up in learned.values())
    again = distill(denoiser, names, lessons, Course(steps=8, learning_rate=1e-2, rank=4))
    for name, (down, up) in learned.items():
        assert torch.equal(down, again[name][0])
        assert torch.equal(up, again[name][1])


def test_a_distilled_merge_answers_more_like_its_inputs_than_what_it_started_from(
    stage: EditingJob, tmp_path: Path
) -> None:
    start = read_adapter(merge_job(stage.job, tmp_path / "start.safetensors", Linear()).path)
    output = tmp_path / "merged.safetensors"
    way = Distillation(steps=30, preserve=1.0, learning_rate=3e-3)
    merged = merge_by_distillation(stage, output, way, start=start)
    adapter = read_adapter(output)
    lessons = [edits(stage, owner) for owner in range(2)]
    assert missed(stage, adapter, lessons) < 0.8 * missed(stage, start, lessons)
    assert set(layers(adapter)) == {layer.name for layer in stage.job.layers()}
    assert [concept.name for concept in merged.header.concepts] == ["my_dog", "look"]
    assert adapter.header.training["merged_by"] == "distill"
    assert adapter.header.training["options"]["start"] == "linear"
    with pytest.raises(OutputExistsError):
        merge_by_distillation(stage, output, way)


def test_without_a_start_it_is_the_closed_form_and_nothing_else_is_left(
    stage: EditingJob, tmp_path: Path
) -> None:
    output = tmp_path / "a folder" / "not there yet" / "m.safetensors"
    merged = merge_by_distillation(stage, output, Distillation(steps=1), limits=Limits(rank=3))
    told = merged.header.training["options"]
    assert told == {
        **{"steps": 1, "preserve": 4.0, "learning_rate": 1e-4},
        **{"start": "constrained", "rank": 3},
    }
    assert [path.name for path in output.parent.iterdir()] == ["m.safetensors"]


def test_one_adapter_stays_as_it_is(world: Path, tmp_path: Path) -> None:
    alone = open_editing_job(open_job([world / "look.safetensors"]), {}, device="cpu", most=2)
    merged = merge_by_distillation(alone, tmp_path / "m.safetensors", Distillation())
    before, after = read_adapter(world / "look.safetensors"), read_adapter(merged.path)
    assert set(layers(after)) == set(layers(before))
    for layer in layers(before):
        name = f"{layer}.delta"
        assert torch.allclose(after.tensors[name], before.tensors[name].float(), atol=1e-7)
