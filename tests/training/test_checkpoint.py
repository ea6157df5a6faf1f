"""Checkpoints: optimizers go on bit for bit, files are whole, changes of the recipe are named."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from customize.errors import TrainingError
from customize.training.checkpoint import (
    Checkpoint,
    changed,
    read_checkpoint,
    save_checkpoint,
)
from customize.training.lion import Lion
from customize.training.optimizer import hush
from customize.training.optimizer_state import (
    OptimizerState,
    optimizer_state,
    restore_optimizer,
)

hush()

from bitsandbytes import optim  # noqa: E402
from prodigyopt import Prodigy  # noqa: E402

OPTIMIZERS = {
    "adamw8bit": optim.AdamW8bit,
    "paged_adamw8bit": optim.PagedAdamW8bit,
    "lion8bit": optim.Lion8bit,
    "adamw": lambda groups: torch.optim.AdamW(groups, fused=True),
    "lion": Lion,
    "prodigy": lambda groups: Prodigy([{**group, "lr": 1.0} for group in groups]),
}
STEPS = 6


class Run:
    """A large parameter (8-bit states) and a small one (32-bit states), stepped by fixed noise."""

    def __init__(self, name: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.large = nn.Parameter(torch.randn(5000, generator=generator))
        self.small = nn.Parameter(torch.randn(8, generator=generator))
        groups = [
            {"params": [self.large], "lr": 1e-2, "weight_decay": 0.1},
            {"params": [self.small], "lr": 1e-3, "weight_decay": 0.0},
        ]
        self.optimizer = OPTIMIZERS[name](groups)

    def tensors(self) -> dict[str, Tensor]:
        return {"large": self.large.detach(), "small": self.small.detach()}

    def step(self, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        for parameter in (self.large, self.small):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bitsandbytes: nothing is paged on a CPU
            self.optimizer.step()

    def checkpoint(self, step: int) -> Checkpoint:
        state = optimizer_state(self.optimizer)
        return Checkpoint(step, self.tensors(), state, torch.zeros(step, 3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    unbroken = Run(name)
    for number in range(STEPS):
        if number == STEPS // 2:
            save_checkpoint(tmp_path / "run.safetensors", unbroken.checkpoint(number))
        unbroken.step(number)

    resumed, saved = Run(name), read_checkpoint(tmp_path / "run.safetensors")
    assert saved.step == STEPS // 2
    for tensor, value in zip(resumed.tensors().values(), saved.adapter.values(), strict=True):
        tensor.copy_(value)
    restore_optimizer(resumed.optimizer, saved.optimizer)
    for number in range(saved.step, STEPS):
        resumed.step(number)

    assert torch.equal(resumed.large, unbroken.large)
    assert torch.equal(resumed.small, unbroken.small)
    ours, theirs = optimizer_state(resumed.optimizer), optimizer_state(unbroken.optimizer)
    assert ours.numbers == theirs.numbers
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[key], theirs.tensors[key]) for key in ours.tensors)
    if "8bit" in name:
        assert ours.tensors["0/state1"].dtype == torch.uint8
        assert ours.tensors["1/state1"].dtype == torch.float32


def test_a_state_dropped_is_noticed(tmp_path: Path) -> None:
    """The test above can fail: without the optimizer's state the run ends elsewhere."""
    unbroken, forgetful = Run("adamw8bit"), Run("adamw8bit")
    for number in range(STEPS):
        if number == STEPS // 2:
            restore_optimizer(forgetful.optimizer, OptimizerState({}, {}))
            for tensor, value in zip(
                forgetful.tensors().values(), unbroken.tensors().values(), strict=True
            ):
                tensor.copy_(value)
        unbroken.step(number)
        if number >= STEPS // 2:
            forgetful.step(number)
    assert not torch.equal(forgetful.large, unbroken.large)


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    state = OptimizerState({"0/step": torch.tensor(3.0)}, {"group 0/d": 1e-6, "0/step": 3})
    whole = Checkpoint(
        step=7,
        adapter={"denoiser.a.delta": torch.randn(2, 3)},
        optimizer=state,
        history_SF=torch.rand(7, 3),
        average={"denoiser.a.delta": torch.randn(2, 3)},
        shaping={"train.batch": 8},
        numbers={"seconds": 0.1, "best": None},
    )
    save_checkpoint(path, whole)
    back = read_checkpoint(path)
    assert (back.step, back.shaping, back.numbers) == (7, whole.shaping, whole.numbers)
    assert back.optimizer.numbers == state.numbers
    assert torch.equal(back.history_SF, whole.history_SF)
    assert torch.equal(back.average["denoiser.a.delta"], whole.average["denoiser.a.delta"])
    assert torch.equal(back.adapter["denoiser.a.delta"], whole.adapter["denoiser.a.delta"])
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_damaged_checkpoints_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, Run("adamw").checkpoint(1))
    whole = path.read_bytes()
    contents = [
        whole[:-10],
        b"",
        b"not a checkpoint",
        whole.replace(b'"facts"', b'"fXcts"'),
    ]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="or delete it to begin anew"):
            read_checkpoint(path)


def test_changes_are_named() -> None:
    then, now = {"train.batch": 8, "train.ema": None}, {"train.batch": 4, "train.ema": None, "x": 1}
    assert changed(then, now) == ["train.batch: 8 -> 4", "x: None -> 1"]
    assert changed(then, dict(then)) == []
