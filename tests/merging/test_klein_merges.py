"""Adapters of FLUX.2 klein merge by every method but the one that needs layers of text alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from builders.klein import toy_klein
from builders.merges import judged_world

from customize.adapters.deltas import layers, weight_delta
from customize.adapters.factors import Limits
from customize.adapters.file import AdapterFile, read_adapter
from customize.cli.main import main
from customize.editing.sample import sample
from customize.merging.by_edits.choose import candidates
from customize.merging.by_edits.distillation import merge_by_distillation
from customize.merging.by_edits.editing_job import EditingJob, open_editing_job
from customize.merging.by_edits.recorded_calls import answers, recorded
from customize.merging.by_edits.regression import merge_by_regression
from customize.merging.by_edits.trial_edits import requests_of
from customize.merging.job import open_job
from customize.merging.merge_files import merge
from customize.merging.methods import Distillation, Linear, Regression, Ties

FUSED = "denoiser.single_transformer_blocks.1.attn.to_qkv_mlp_proj"
TEXT_KEY = "denoiser.transformer_blocks.1.attn.add_k_proj"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = judged_world(tmp_path_factory.mktemp("klein_world"), toy_klein, (64, 64))
    with chdir(folder):  # of an adapter's places only those in the working folder are followed
        yield folder


@pytest.fixture(scope="module")
def files(world: Path) -> list[Path]:
    return [world / "my_dog.safetensors", world / "look.safetensors"]


@pytest.fixture(scope="module")
def stage(files: list[Path]) -> EditingJob:
    return open_editing_job(open_job(files), {}, device="cpu", most=1)


def _delta(adapter: AdapterFile, layer: str) -> torch.Tensor:
    assert layer in set(layers(adapter))
    shape = (192 + 32 * 3, 32) if layer == FUSED else (32, 32)
    return weight_delta(adapter, layer, torch.zeros(shape))


@pytest.mark.parametrize("method", [Linear(), Ties(density=1.0)])
def test_weights_alone(files: list[Path], tmp_path: Path, method: Linear | Ties) -> None:
    merged = read_adapter(merge(files, tmp_path / "merged.safetensors", method).path)
    assert merged.header.family == "flux2_klein"
    dog, look = (read_adapter(path) for path in files)
    both = _delta(dog, TEXT_KEY) + _delta(look, TEXT_KEY)
    found = _delta(merged, TEXT_KEY)
    assert torch.allclose(found, both, atol=1e-5) == isinstance(method, Linear)
    assert found.norm() > 0.1 * both.norm()


def test_constrained_is_refused_with_the_reason(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "merged.safetensors"
    assert main(["merge", *map(str, files), "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "method constrained: in bases of this family what reads text has read pictures" in line
    assert "use --method regression or distill" in line
    assert not output.exists()


def test_recorded_calls_are_answered_alike_when_asked_again(stage: EditingJob) -> None:
    denoiser = stage.pipeline.transformer
    with recorded(denoiser) as calls:
        sample(stage.pipeline, requests_of(stage.trained[0].examples), stage.sampling)
    assert len(calls) == 2 * stage.sampling.steps * len(stage.trained[0].examples)
    for call, again in zip(calls, answers(denoiser, calls, at_once=3), strict=True):
        assert torch.allclose(again, call.answer_Chw, atol=1e-5)


def test_regression_fits_what_layers_read(stage: EditingJob, tmp_path: Path) -> None:
    merged = merge_by_regression(stage, tmp_path / "merged.safetensors")
    assert not merged.otherwise
    dog, zero = _delta(stage.job.inputs[0].adapter, FUSED), torch.zeros(192 + 96, 32)
    seen = stage.evidence().of(FUSED)

    def missed(change: torch.Tensor) -> float:
        """Sum what a change misses of the dog's, which alone has this layer, and of no change."""
        wanted = zip(
            (dog, zero, zero), (*seen.own, Regression.preserve * seen.generic), strict=True
        )
        off = [((change - one).double(), moment.double()) for one, moment in wanted]
        return sum(float(((each @ moment) * each).sum()) for each, moment in off)

    fitted = missed(_delta(read_adapter(merged.path), FUSED))
    assert fitted < 0.9 * min(missed(dog), missed(zero))


def test_distillation_corrects_addition(stage: EditingJob, tmp_path: Path) -> None:
    way = Distillation(steps=3)
    merged = read_adapter(merge_by_distillation(stage, tmp_path / "merged.safetensors", way).path)
    facts = merged.header.training
    assert (facts["merged_by"], facts["options"]["start"]) == ("distill", "linear")
    added = read_adapter(merge(stage.job.files, tmp_path / "sum.safetensors", Linear()).path)
    moved = (_delta(merged, FUSED) - _delta(added, FUSED)).norm()
    assert 0 < moved < 0.5 * _delta(added, FUSED).norm()


def test_auto_does_not_try_what_is_refused(stage: EditingJob) -> None:
    tried = candidates(stage.job, Limits(), None)
    assert "constrained" not in tried
    assert {"linear", "average", "ties", "dare"} <= tried.keys()
