"""Several processes: the losses of one, at the same whole batch, also when a run is taken up again.

They are told of each other as `accelerate launch` tells them (`test_run.py` has one run by its
launcher), and talk by gloo.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.nursery import Nursery
from builders.runs import toy_recipe
from builders.studio import free_port
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from customize.recipe import Recipe
from customize.training.checkpoint import read_checkpoint
from customize.training.run import run_recipe

STEPS, STOP = 8, 5
TAGS = ("loss", "loss/concept", "loss/preserved", "gradient_norm")
DOOR = """
import os, signal
from pathlib import Path
from customize.recipe import Recipe
from customize.training.progress import Reports
from customize.training.run import run_recipe
real = Reports.step
def step(self, step):
    real(self, step)
    if step.step == STOP:
        os.kill(os.getpid(), signal.SIGINT)
Reports.step = step
recipe = Recipe.model_validate_json(Path("recipe.json").read_text())
run_recipe(recipe, log=lambda _: None, progress=False)
"""
"""A process that trains; after step `STOP` the one that reports is interrupted."""


def launch(nursery: Nursery, recipe: Recipe, folder: Path, stop: int | None = None) -> None:
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    together = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    children = [
        nursery.start(
            f"STOP = {stop}\n{DOOR}",
            folder / f"process_{rank}.log",
            folder=folder,
            **together,
            RANK=rank,
            LOCAL_RANK=rank,
        )
        for rank in ("0", "1")
    ]
    assert [child.wait() for child in children] == [0, 0], children[0].log.read_text()


def trace(recipe: Recipe) -> dict[str, dict[int, float]]:
    """Read what a run logged: every figure by its step."""
    board = EventAccumulator(str(recipe.output / "logs"))
    board.Reload()
    return {tag: {event.step: event.value for event in board.Scalars(tag)} for tag in TAGS}


@pytest.mark.slow
def test_two_processes_learn_as_one_does_and_go_on_after_a_stop(
    tmp_path: Path, nursery: Nursery
) -> None:
    def recipe(name: str, batch: int) -> Recipe:
        train = {"steps": STEPS, "batch": batch, "accumulation": 2, "optimizer": "adamw"}
        output = str(tmp_path / name)
        return toy_recipe(tmp_path, train=train, output=output, preservation={"share": 0.4})

    alone, together = recipe("alone", 4), recipe("together", 2)
    assert run_recipe(alone, log=lambda _: None, progress=False).finished
    launch(nursery, together, tmp_path, STOP)
    assert read_checkpoint(together.output / "checkpoint.safetensors").step == STOP
    launch(nursery, together, tmp_path)

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
def test_one_process_goes_on_where_two_stopped(tmp_path: Path, nursery: Nursery) -> None:
    """What counts is the whole batch."""
    train = {"steps": STEPS, "batch": 2}
    launch(nursery, toy_recipe(tmp_path, train=train), tmp_path, STOP)
    assert run_recipe(
        toy_recipe(tmp_path, train={**train, "batch": 4}), log=lambda _: None, progress=False
    ).finished
