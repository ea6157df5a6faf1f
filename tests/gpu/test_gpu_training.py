"""Training and editing on a GPU: the CPU's losses and pictures, in every precision and compiled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_resolved, toy_xl_base
from builders.pairs import scene
from builders.runs import toy_recipe
from torch import nn

from customize.adapters import LowRank, attach
from customize.adapters.file import read_adapter
from customize.editing import Editor
from customize.families import open_family
from customize.training.device import use_channels_last
from customize.training.run import run_recipe

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")
LORA = {"method": "low_rank", "rank": 2, "targets": ["attention", "convolutions", "feed_forward"]}


def quiet(recipe: Any) -> Any:
    return run_recipe(recipe, log=lambda _: None, progress=False)


@pytest.mark.parametrize("adapter", [{"method": "cross_attention_kv"}, LORA], ids=["K/V", "LoRA"])
def test_losses_are_those_of_a_cpu(
    tmp_path: Path, adapter: dict[str, Any], device: torch.device, losses: Any
) -> None:
    """Noise is drawn on the CPU everywhere, so that one seed is one run; so is the cache's key."""
    train = {"steps": 5, "precision": "no"}
    base = {"name": str(tmp_path / "base"), "precision": "float32"}
    found = [
        losses(
            toy_recipe(
                tmp_path, base=base, adapter=adapter, train=train, output=str(tmp_path / name)
            ),
            where,
        )
        for name, where in (("cpu", CPU), ("gpu", device))
    ]
    assert len(found[0]) == 5
    assert found[1] == pytest.approx(found[0], rel=0.02)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16", "auto"])
def test_a_run_in_each_precision_ends_with_a_float32_adapter_that_edits(
    tmp_path: Path, precision: str, device: torch.device
) -> None:
    if device.type == "cpu" and precision == "fp16":
        pytest.skip("fp16 needs CUDA")
    recipe = toy_recipe(
        tmp_path,
        base={"name": str(tmp_path / "base")},
        train={"steps": 4, "precision": precision, "learning_rate": 1e-3},
        preview={"every": 4},
        save={"every": 2},
    )
    result = quiet(recipe)
    assert result.finished
    tensors = read_adapter(result.adapter).tensors
    assert tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    editor = Editor.from_base(str(tmp_path / "base"), device=device).load(result.adapter)
    edited = editor.edit(scene(1, (32, 32)), "add <my-dog>", steps=2).image
    assert edited.size == (32, 32)


def test_an_xl_adapter_learns(tmp_path: Path, device: torch.device, losses: Any) -> None:
    recipe = toy_recipe(
        tmp_path,
        base={"name": str(toy_xl_base(tmp_path / "xl"))},
        adapter={"method": "low_rank", "rank": 2},
        train={"steps": 3, "precision": "auto", "gradient_checkpointing": True},
    )
    assert all(math.isfinite(loss) for loss in losses(recipe, device))


def test_edits_are_those_of_a_cpu(tmp_path: Path, device: torch.device) -> None:
    pictures = [
        np.asarray(
            Editor.from_base("embedded", precision="float32", device=where)
            .edit(scene(3, (64, 64)), "make it night", steps=4, seed=1)
            .image,
            dtype=np.float32,
        )
        for where in (CPU, device)
    ]
    assert pictures[0].std() > 5
    assert np.abs(pictures[0] - pictures[1]).mean() < 1.0


def test_frozen_convolutions_lie_channels_last_and_predict_the_same(
    tmp_path: Path, device: torch.device
) -> None:
    family = open_family(toy_resolved(tmp_path), device=device, dtype=torch.float32)
    attach(family, LowRank(rank=2, targets=("convolutions",)))
    noisy = torch.ones(2, 4, 16, 16, device=device)
    conditions = {
        "source": torch.zeros(2, 4, 16, 16, device=device),
        "text": torch.ones(2, 24, 16, device=device),
    }
    level = torch.tensor([10, 900], device=device)
    with torch.no_grad():
        before = family.predict(noisy, level, conditions)
        use_channels_last(family.denoiser, torch.device("cuda"))
        after = family.predict(noisy, level, conditions)
    torch.testing.assert_close(after, before, rtol=5e-3, atol=5e-3)
    wide = {
        (weight.requires_grad, weight.is_contiguous())
        for module in family.denoiser.modules()
        if isinstance(module, nn.Conv2d) and min((weight := module.weight).shape[1:]) > 1
    }
    assert wide == {(False, False), (True, True)}


def test_a_compiled_denoiser_learns_the_same(
    tmp_path: Path, device: torch.device, losses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last, as it takes most of a minute; on a CPU traced alone, as a real compiler takes more."""
    if device.type == "cpu":
        real = torch.compile
        monkeypatch.setattr(torch, "compile", lambda module: real(module, backend="eager"))
    found = [
        losses(
            toy_recipe(
                tmp_path,
                train={"steps": 3, "precision": "bf16", "compile": compiled},
                output=str(tmp_path / f"{compiled}"),
            ),
            device,
        )
        for compiled in (False, True)
    ]
    assert len(found[0]) == 3
    assert found[1] == pytest.approx(found[0], rel=0.05)
