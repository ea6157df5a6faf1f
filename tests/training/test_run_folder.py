"""What a run may touch: its own files, one run at a time, never anybody's data, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.nursery import Nursery
from builders.runs import toy_recipe
from safetensors.torch import load_file

from customize.adapters.file import read_header
from customize.cli.main import main
from customize.errors import (
    BaseModelError,
    OutputError,
    OutputExistsError,
    PairsError,
    TrainingError,
)
from customize.files.manifest import NAME as MANIFEST
from customize.files.tensors import read_tensors, save_tensors
from customize.recipe import Recipe
from customize.training import run as running
from customize.training.checkpoint import KEY, read_checkpoint
from customize.training.progress import Reports
from customize.training.run import RunResult, run_recipe
from customize.training.steps import Step

THREE, SIX = {"steps": 3}, {"steps": 6}
HELD_OUT = {"every": 2, "count": 1}


def run(recipe: Recipe, **options: Any) -> RunResult:
    """Run without a bar or a word."""
    return run_recipe(recipe, **{"log": lambda _: None, "progress": False, **options})


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, but for the cache, logs and the list of what runs wrote."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not name.startswith(("cache/", "logs/", ".customize"))
    }


def at_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something after a step."""
    usual = Reports.step

    def step(self: Reports, step: Step) -> None:
        usual(self, step)
        if step.step == number:
            act()

    patch.setattr(Reports, "step", step)


def stop() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def fail() -> None:
    """Break."""
    raise TrainingError("broke")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the base, pairs and pictures that all runs here read."""
    folder = tmp_path_factory.mktemp("toys")
    toy_recipe(folder)
    return folder


def recipe_for(toys: Path, output: Path, **changes: Any) -> Recipe:
    """Return a recipe of three steps that runs into `output`."""
    return toy_recipe(toys, output=str(output), **{"train": THREE, **changes})


def test_overwriting_replaces_what_a_run_wrote_and_nothing_else(toys: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = recipe_for(toys, output, preview={**HELD_OUT, "images": str(toys / "unseen")})
    run(first)
    assert (output / "best.safetensors").exists()
    mine = {"notes.txt": b"mine", "previews/step_000777.png": b"mine", "logs/mine": b"mine"}
    for name, content in mine.items():
        (output / name).write_bytes(content)
    run(recipe_for(toys, output, train={"steps": 4}), overwrite=True)
    left = files(output) | {"logs/mine": (output / "logs/mine").read_bytes()}
    assert left.items() >= mine.items()
    assert not {"best.safetensors", "previews/step_000002.png"} & left.keys()
    assert not [path for path in output.iterdir() if path.name.startswith(".replaced")]
    assert read_header(output / "adapter.safetensors").training["steps"] == 4
    assert len(list((output / "logs").glob("events*"))) == 1


@pytest.mark.parametrize("name", ["loss.png", "best.safetensors", "last_good.safetensors"])
def test_a_user_s_files_of_a_run_s_names_are_never_touched(
    toys: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / name).write_bytes(b"mine")
    recipe = recipe_for(toys, output, preview={**HELD_OUT, "images": str(toys / "unseen")})
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=name.replace(".", r"\.")):
            run(recipe, overwrite=overwrite)
    assert files(output) == {name: b"mine"}


def test_a_best_of_the_user_s_own_stays_where_the_run_writes_none(
    toys: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run(recipe_for(toys, output))
    (output / "best.safetensors").write_bytes(b"mine")
    run(recipe_for(toys, output), overwrite=True)
    assert (output / "best.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("broken", ["pairs", "base", "word"])
def test_overwriting_checks_everything_first(toys: Path, tmp_path: Path, broken: str) -> None:
    own = tmp_path / "toys"
    shutil.copytree(toys, own)
    output = tmp_path / "run"
    run(recipe_for(own, output))
    before = files(output)
    recipe = recipe_for(own, output)
    if broken == "pairs":
        (own / "pairs" / "s" / "0.png").write_bytes(b"no picture")
    elif broken == "base":
        (own / "base" / "model_index.json").write_text("{}")
    else:
        concept = recipe.concepts[0].model_copy(update={"word": "<other>"})
        recipe = recipe.model_copy(update={"concepts": (concept,)})
    with pytest.raises((PairsError, BaseModelError)):
        run(recipe, overwrite=True)
    assert files(output) == before


def test_a_run_that_fails_brings_the_replaced_one_back(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    run(recipe_for(toys, output, preview=HELD_OUT))
    before = files(output)
    at_step(monkeypatch, 2, fail)
    with pytest.raises(TrainingError, match="broke"):
        run(recipe_for(toys, output, train={**SIX, "seed": 1}, save={"every": 1}), overwrite=True)
    assert files(output) == before


def test_a_stopped_replacement_goes_on_by_the_same_command(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, other = tmp_path / "run", tmp_path / "other"
    run(recipe_for(toys, output, train={"steps": 2}))
    first = (output / "adapter.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        at_step(patch, 2, stop)
        assert not run(recipe_for(toys, output), overwrite=True).finished
    assert (output / ".replaced-train" / "adapter.safetensors").read_bytes() == first
    said: list[str] = []
    assert run(recipe_for(toys, output), overwrite=True, log=said.append).finished
    assert "going on after step 2 of 3" in said
    run(recipe_for(toys, other))
    ours, theirs = (load_file(each / "adapter.safetensors") for each in (output, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (output / ".replaced-train").exists()


def test_a_stopped_replacement_by_another_recipe_begins_anew(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    run(recipe_for(toys, output, train={"steps": 2}))
    with monkeypatch.context() as patch:
        at_step(patch, 2, stop)
        run(recipe_for(toys, output), overwrite=True)
    made = run(recipe_for(toys, output, train={"steps": 4, "seed": 5}), overwrite=True)
    assert made.steps == 4


# One run at a time, where a run may be


def test_two_trainings_into_one_folder_end_with_one_message(toys: Path, tmp_path: Path) -> None:
    recipe, output = recipe_for(toys, tmp_path / "run"), tmp_path / "run"

    def again() -> None:
        with pytest.raises(OutputError, match=r"it is in use by .* since 20"):
            run(recipe, overwrite=True)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 1, again)
        with pytest.raises(KeyboardInterrupt):
            run(recipe)
    assert run(recipe).finished
    assert read_header(output / "adapter.safetensors").training["steps"] == 3


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("pairs", "it is the pairs of my_dog"),
        ("pairs/run", "it lies in the pairs of my_dog"),
        ("unseen/run", "it lies in the previews' pictures"),
        ("base/run", "it lies in the base"),
        (".", "it holds the pairs of my_dog"),
        ("elsewhere", "it (is|holds) (a )?pictures? of the pairs"),
    ],
)
def test_a_run_keeps_away_from_what_it_reads(
    toys: Path, tmp_path: Path, output: str, found: str
) -> None:
    shutil.copytree(toys, own := tmp_path / "toys")
    (own / "elsewhere").mkdir()
    for role in ("s", "t"):
        (own / "pairs" / role).rename(own / "elsewhere" / role)
    rows = (own / "pairs" / "pairs.jsonl").read_text()
    rows = rows.replace('"s/', '"../elsewhere/s/').replace('"t/', '"../elsewhere/t/')
    (own / "pairs" / "pairs.jsonl").write_text(rows)
    before = files(own)
    images = {**HELD_OUT, "images": str(own / "unseen")}
    with pytest.raises(OutputError, match=found):
        run(recipe_for(own, own / output, preview=images))
    assert files(own) == before


def test_a_run_keeps_away_from_what_another_reads(toys: Path, tmp_path: Path) -> None:
    shutil.copytree(toys / "pairs", tmp_path / "others" / "pairs")
    for output in (tmp_path / "others" / "pairs", tmp_path / "others"):
        with pytest.raises(OutputError, match="the pairs"):
            run(recipe_for(toys, output))


def test_check_tells_of_the_output_too(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    recipe = recipe_for(toys, toys / "pairs")
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json(exclude_none=True))
    assert main(["check", "recipe.yaml"]) == 2
    assert "is the pairs of" in " ".join(capsys.readouterr().out.split())
    assert main(["train", "recipe.yaml"]) == 2
    assert "it is the pairs of my_dog" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["pairs", "base", "weights"])
def test_faults_leave_no_empty_folders(toys: Path, tmp_path: Path, broken: str) -> None:
    shutil.copytree(toys, own := tmp_path / "toys")
    if broken == "pairs":
        (own / "pairs" / "pairs.jsonl").write_text("no JSON")
    elif broken == "base":
        (own / "base" / "model_index.json").unlink()
    else:
        weights = next((own / "base" / "vae").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises((PairsError, BaseModelError)):
        run(recipe_for(own, tmp_path / "runs" / "dog"))
    assert [path.name for path in tmp_path.iterdir()] == ["toys"]


def test_a_run_s_files_are_as_readable_as_the_umask_says(toys: Path, tmp_path: Path) -> None:
    usual = os.umask(0o022)
    try:
        run(recipe_for(toys, tmp_path / "run"))
    finally:
        os.umask(usual)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
    for name in ("adapter.safetensors", "loss.png", "checkpoint.safetensors", MANIFEST):
        assert modes[name] == 0o644


# Further


def test_a_finished_run_is_trained_further_as_if_it_had_never_ended(
    toys: Path, tmp_path: Path
) -> None:
    output, whole = tmp_path / "run", tmp_path / "whole"
    run(recipe_for(toys, output))
    with pytest.raises(OutputExistsError, match="pass --continue to train it further"):
        run(recipe_for(toys, output, train=SIX))
    with pytest.raises(TrainingError, match=r"has learned 3 already.*train\.steps=6"):
        run(recipe_for(toys, output), further=True)
    said: list[str] = []
    result = run(recipe_for(toys, output, train=SIX), further=True, log=said.append)
    assert result.steps == 6
    assert "going on after step 3 of 6" in said
    run(recipe_for(toys, whole, train=SIX))
    ours, theirs = (load_file(each / "adapter.safetensors") for each in (output, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_header(output / "adapter.safetensors").training["steps"] == 6


def test_a_new_schedule_is_said(toys: Path, tmp_path: Path) -> None:
    cosine = {"schedule": "cosine"}
    run(recipe_for(toys, tmp_path / "run", train={**THREE, **cosine}))
    said: list[str] = []
    recipe = recipe_for(toys, tmp_path / "run", train={**SIX, **cosine})
    run(recipe, further=True, log=said.append)
    told = next(line for line in said if line.startswith("going on"))
    assert "3 were planned, so the cosine schedule is drawn anew over 6" in told
    assert "the rate goes on at 50% of the full one, which was at 25%" in told


def test_training_further_may_be_stopped_and_changes_nothing_but_steps(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    run(recipe_for(toys, output))
    with pytest.raises(TrainingError, match=r"train\.batch: 4 -> 2"):
        run(recipe_for(toys, output, train={**SIX, "batch": 2}), further=True)
    with monkeypatch.context() as patch:
        at_step(patch, 4, stop)
        assert not run(recipe_for(toys, output, train=SIX), further=True).finished
    assert read_header(output / "adapter.safetensors").training["steps"] == 3
    assert run(recipe_for(toys, output, train=SIX), further=True).steps == 6


def test_there_must_be_a_run_to_train_further(
    toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match="no checkpoint of a run"):
        run(recipe_for(toys, tmp_path / "run"), further=True)
    assert not (tmp_path / "run").exists()
    recipe = recipe_for(toys, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json(exclude_none=True))
    command = ["train", str(tmp_path / "recipe.yaml"), "--continue", "--overwrite"]
    assert main(command) == 2
    assert "leave the other out" in capsys.readouterr().err


# Checkpoints


def stopped_at_two(toys: Path, output: Path, patch: pytest.MonkeyPatch) -> Path:
    """Stop a run after two steps and return its checkpoint."""
    with patch.context() as inside:
        at_step(inside, 2, stop)
        run(recipe_for(toys, output))
    return output / "checkpoint.safetensors"


def test_one_flipped_byte_stops_a_run_from_going_on(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stopped_at_two(toys, tmp_path / "run", monkeypatch)
    whole = path.read_bytes()
    for place in range(100, len(whole), len(whole) // 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(TrainingError, match="damaged or foreign"):
            run(recipe_for(toys, tmp_path / "run"))
    path.write_bytes(whole)
    assert run(recipe_for(toys, tmp_path / "run")).finished


@pytest.mark.parametrize("what", ["step", "history", "missing", "shape", "nan", "optimizer"])
def test_a_checkpoint_that_is_not_this_run_s_is_refused(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whole files with right checksums, whose content no run of this recipe would have written."""
    path = stopped_at_two(toys, tmp_path / "run", monkeypatch)
    tensors, facts = read_tensors(path, key=KEY)
    name = next(name for name in tensors if name.startswith("adapter/"))
    match what:
        case "step":
            facts["step"] = 900
        case "history":
            tensors["history"] = tensors["history"][:1]
        case "missing":
            del tensors[name]
        case "shape":
            tensors[name] = tensors[name][:1].clone()
        case "nan":
            tensors[name] = tensors[name] * torch.nan
        case _:
            tensors["optimizer/900/state1"] = torch.zeros(3)
    save_tensors(path, tensors, facts, key=KEY)
    with pytest.raises(TrainingError, match="expected the checkpoint of this very run"):
        run(recipe_for(toys, tmp_path / "run"))
    assert read_checkpoint(path)


# Full disks


def test_a_full_disk_while_training_is_one_message(toys: Path, small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(b"a" * (2**21 - 150_000))
    recipe = recipe_for(toys, small_disk / "run", train=SIX, save={"every": 1})
    with pytest.raises(OutputError, match=f"the disk of {small_disk} is full"):
        run(recipe)
    left = [path for path in small_disk.rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.endswith(".tmp")]
    assert not (small_disk / "run" / "adapter.safetensors").exists()
    (small_disk / "fill").unlink()
    assert run(recipe).finished


def test_a_full_disk_for_the_logs_is_one_message(
    toys: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_for(toys, small_disk / "run", train=SIX)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 2, lambda: (small_disk / "fill").write_bytes(b"a" * free(small_disk)))
        with pytest.raises(OutputError, match="is full"):
            run(recipe)
    assert "Traceback" not in capfd.readouterr().err


def free(disk: Path) -> int:
    """Return the bytes that are free."""
    return shutil.disk_usage(disk).free


def test_a_kill_while_results_are_replaced_loses_neither(
    toys: Path, tmp_path: Path, nursery: Nursery
) -> None:
    """Kill -9 right after the earlier results went aside; the same command replaces them."""
    output = tmp_path / "run"
    run(recipe_for(toys, output))
    recipe = recipe_for(toys, output, train={**THREE, "seed": 3})
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json(exclude_none=True))
    program = (
        "import os, signal\n"
        "from customize.training import run\n"
        "run.open_session = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from customize.cli.main import main\n"
        "main(['train', 'recipe.yaml', '--overwrite'])\n"
    )
    killed = nursery.start(program, tmp_path / "log.txt", folder=tmp_path)
    assert killed.wait() == -signal.SIGKILL
    assert (output / ".replaced-train" / "adapter.safetensors").exists()
    assert run(recipe, overwrite=True).finished
    assert json.loads((output / MANIFEST).read_text())["runs"]["train"]["names"]
    assert running.RunFolder(output).adapter.exists()
    assert not (output / ".replaced-train").exists()
