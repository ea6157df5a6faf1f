"""Training beside the page: one at a time in a folder, read from the folder, living on alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from builders.runs import toy_recipe
from builders.studio import ROOT

from customize.errors import OutputError, StudioError
from customize.studio import trainer
from customize.training.run import run_recipe
from customize.training.run_folder import RunFolder


def toy_project(folder: Path, steps: int) -> Path:
    """Write a recipe that a command can train, and return the project's folder."""
    recipe = toy_recipe(folder, train={"steps": steps}, preview={"every": 5}).model_dump(
        mode="json"
    )
    recipe["output"] = "runs/dog"
    (folder / "recipes").mkdir()
    (folder / "recipes" / "dog.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def until(folder: Path, state: str, seconds: float = 240) -> trainer.Progress:
    """Look on until a run is in that state."""
    end = time.monotonic() + seconds
    while (now := trainer.progress(folder)).state != state:
        assert time.monotonic() < end, now
        assert now.state != "failed" or state == "failed", now.told
        time.sleep(0.5)
    return now


def test_a_run_is_seen_from_its_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert trainer.progress(folder).state == "not started"
    recipe = toy_recipe(tmp_path, train={"steps": 6}, preview={"every": 3})
    run_recipe(recipe, log=lambda _: None, progress=False)
    now = trainer.progress(folder)
    assert (now.state, now.step, now.steps, len(now.losses)) == ("finished", 6, 6, 6)
    assert now.preview == folder / "previews" / "step_000006.png"
    assert trainer.stop(folder) == "nothing is training there"
    run_recipe(  # the files are kept open, and what comes later is seen
        toy_recipe(tmp_path, train={"steps": 8}, preview={"every": 3}),
        further=True,
        log=lambda _: None,
        progress=False,
    )
    assert (trainer.progress(folder).step, len(trainer.progress(folder).losses)) == (8, 8)


def test_one_trains_at_a_time_and_is_stopped_and_goes_on(tmp_path: Path) -> None:
    root = toy_project(tmp_path, 4000)
    folder, words = root / "runs" / "dog", ["train", "recipes/dog.yaml"]
    trainer.start(folder, words, root)
    until(folder, "running")
    with pytest.raises(StudioError, match="is training there; expected one at a time"):
        trainer.start(folder, words, root)
    with pytest.raises(OutputError, match="it is in use by"):
        run_recipe(toy_recipe(root, output=str(folder)), log=lambda _: None, progress=False)
    assert "it finishes its step" in trainer.stop(folder)
    stopped = until(folder, "stopped")
    assert 0 < stopped.step < 4000
    assert "the same command goes on" in stopped.told


def test_training_goes_on_when_the_server_is_killed(tmp_path: Path) -> None:
    root = toy_project(tmp_path, 30)
    folder = root / "runs" / "dog"
    program = (
        "import sys, time; from pathlib import Path; from customize.studio import trainer; "
        f"root = Path({str(root)!r}); "
        "trainer.start(root / 'runs' / 'dog', ['train', 'recipes/dog.yaml'], root); "
        "print('started', flush=True); time.sleep(600)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"started\n"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    assert until(folder, "finished").step == 30
    assert RunFolder(folder).adapter.is_file()


def test_a_run_that_breaks_says_why(tmp_path: Path) -> None:
    trainer.start(tmp_path / "runs" / "none", ["train", "recipes/none.yaml"], tmp_path)
    assert "recipes/none.yaml" in until(tmp_path / "runs" / "none", "failed").told
