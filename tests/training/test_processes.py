"""Several processes: the losses of one, at the same whole batch, also when a run is taken up again.

torch.distributed.run is what `accelerate launch` calls; the processes talk by gloo.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.runs import toy_recipe
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from customize.recipe import Recipe
from customize.training.checkpoint import read_checkpoint
from customize.training.run import run_recipe

STEPS, STOP = 8, 5
TAGS = ("loss", "loss/concept", "loss/preserved", "gradient_norm")
DOOR = f"""
import os, signal, sys
from pathlib import Path
from customize.recipe import Recipe
from customize.training.progress import Reports
from customize.training.run import run_recipe
real = Reports.step
def step(self, step):
    real(self, step)
    if step.step == {STOP} and sys.argv[2] == "stop":
        os.kill(os.getpid(), signal.SIGINT)
Reports.step = step
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
run_recipe(recipe, log=lambda _: None, progress=False)
"""
"""A process that trains; with `stop`, the one that reports is interrupted in the middle."""


def launch(recipe: Recipe, folder: Path, how: str) -> None:
    (folder / "door.py").write_text(DOOR)
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [str(folder / "door.py"), str(folder / "recipe.json"), how]
    subprocess.run(
        [sys.executable, *command, *arguments],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
        capture_output=True,
    )


def trace(recipe: Recipe) -> dict[str, dict[int, float]]:
    """Read what a run logged: every figure by its step."""
    board = EventAccumulator(str(recipe.output / "logs"))
    board.Reload()
    return {tag: {event.step: event.value for event in board.Scalars(tag)} for tag in TAGS}


@pytest.mark.slow
def test_two_processes_learn_as_one_does_and_go_on_after_a_stop(tmp_path: Path) -> None:
    def recipe(name: str, batch: int) -> Recipe:
        train = {"steps": STEPS, "batch": batch, "accumulation": 2, "optimizer": "adamw"}
        output = str(tmp_path / name)
        return toy_recipe(tmp_path, train=train, output=output, preservation={"share": 0.4})

    alone, together = recipe("alone", 4), recipe("together", 2)
    assert run_recipe(alone, log=lambda _: None, progress=False).finished
    launch(together, tmp_path, "stop")
    assert read_checkpoint(together.output / "checkpoint.safetensors").step == STOP
    launch(together, tmp_path, "to the end")

    ours, theirs = trace(together), trace(alone)
    assert [*theirs["loss"]] == [*range(1, STEPS + 1)]
    for tag in TAGS:
        assert len(theirs[tag]) >= STEPS - 2, tag
        assert ours[tag] == pytest.approx(theirs[tag], rel=1e-4), tag
    states = [load_file(made.output / "adapter.safetensors") for made in (together, alone)]
    assert len(states[0]) > 10
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_one_process_goes_on_where_two_stopped(tmp_path: Path) -> None:
    """What counts is the whole batch."""
    train = {"steps": STEPS, "batch": 2}
    launch(toy_recipe(tmp_path, train=train), tmp_path, "stop")
    assert run_recipe(
        toy_recipe(tmp_path, train={**train, "batch": 4}), log=lambda _: None, progress=False
    ).finished
