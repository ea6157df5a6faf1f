"""What tests on a GPU share: the device, and a training's losses on one device or another.

They are left out where there is no CUDA. `CUSTOMIZE_GPU=cpu` runs them on a CPU nonetheless: to see
that they work, not what they show.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from itertools import islice

import pytest
import torch

from customize.recipe import Recipe

Losses = Callable[[Recipe, torch.device], list[float]]


@pytest.fixture
def device() -> torch.device:
    if os.environ.get("CUSTOMIZE_GPU") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return torch.device("cuda")


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Losses:
    """Return what trains a recipe on a device, from the start, and gives the loss of each step."""
    from accelerate.state import AcceleratorState

    from customize.training.device import open_accelerator
    from customize.training.open_session import open_session
    from customize.training.plan import plan_run
    from customize.training.run_folder import RunFolder

    def train(recipe: Recipe, where: torch.device) -> list[float]:
        if where.type == "cpu":
            monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
        else:
            monkeypatch.delenv("ACCELERATE_TORCH_DEVICE", raising=False)
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = open_accelerator(recipe.train.precision)
        assert accelerator.device.type == where.type
        plan = plan_run(recipe, lambda _: None)
        session = open_session(plan, accelerator, RunFolder(recipe.output), progress=False)
        found = [step.loss for step in islice(session.steps(), session.pace.steps)]
        AcceleratorState._reset_state(reset_partial_state=True)
        gc.collect()
        return found

    return train
