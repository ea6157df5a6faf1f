"""Whole runs: one command from recipe to adapter, stopped and broken in every way."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.memory import Fresh
from builders.nursery import Nursery
from builders.runs import toy_pairs, toy_recipe
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import customize
from customize.adapters import Attached
from customize.adapters.file import read_adapter
from customize.errors import OutputExistsError, PairsError, TrainingError
from customize.files.manifest import NAME as MANIFEST
from customize.recipe import Recipe
from customize.studio.project import Project
from customize.training import open_session, steps
from customize.training.batches import Batch
from customize.training.checkpoint import read_checkpoint
from customize.training.learning_left import StillFalling
from customize.training.loss import Losses
from customize.training.progress import Reports
from customize.training.run import RunResult, run_recipe
from customize.training.steps import Step

SHORT = {"steps": 4}
STEPS = 12


def run(recipe: Recipe, **options: Any) -> RunResult:
    """Run without a bar or a word."""
    return run_recipe(recipe, **{"log": lambda _: None, "progress": False, **options})


def after_step(patch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` with each step's number, after it is reported."""
    real = Reports.step

    def step(self: Reports, step: Step) -> None:
        real(self, step)
        act(step.step)

    patch.setattr(Reports, "step", step)


def equal(one: Path, other: Path) -> bool:
    """Compare two adapter files' tensors, bit for bit."""
    ours, theirs = load_file(one), load_file(other)
    assert ours
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole run of 12 steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    said: list[str] = []
    result = run(toy_recipe(folder), log=said.append)
    assert result.finished
    assert result.adapter == folder / "run" / "adapter.safetensors"
    assert result.steps == STEPS
    assert any("my_dog: 3 pairs, laid out as" in line for line in said)
    return folder


def test_a_run_leaves_an_adapter_a_curve_and_logs(unbroken: Path) -> None:
    left = {path.name for path in (unbroken / "run").iterdir()}
    results = {"adapter.safetensors", "cache", "checkpoint.safetensors", "logs", "loss.png"}
    assert left == {*results, MANIFEST}
    assert list((unbroken / "run" / "logs").glob("events.out.tfevents*"))
    with Image.open(unbroken / "run" / "loss.png") as curve:
        assert curve.size == (960, 480)
    header = read_adapter(unbroken / "run" / "adapter.safetensors").header
    assert header.method == "cross_attention_kv"
    assert [(c.name, c.word, c.instructions) for c in header.concepts] == [
        ("my_dog", "<my-dog>", ("add <my-dog>",))
    ]
    assert Recipe.model_validate_json(Recipe.model_validate(header.recipe).model_dump_json())
    assert len(header.pairs) == 3
    assert header.training["steps"] == STEPS
    assert math.isfinite(header.training["loss"])


def test_a_finished_run_is_never_overwritten_in_silence(unbroken: Path) -> None:
    before = (unbroken / "run" / "adapter.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="another output, or pass --overwrite"):
        run(toy_recipe(unbroken))
    assert (unbroken / "run" / "adapter.safetensors").read_bytes() == before


def test_a_loss_still_falling_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(losses: list[float]) -> StillFalling:
        assert len(losses) == 4
        assert all(loss > 0 for loss in losses)
        return StillFalling(0.5, 2, 50)

    monkeypatch.setattr("customize.training.run_loop.still_falling", judge)
    said: list[str] = []
    run(toy_recipe(tmp_path, train=SHORT), log=said.append)
    assert "the concept's loss was still falling: by 50% over the last 2 steps" in said[-1]


def test_adapters_of_earlier_steps_are_kept_where_asked(tmp_path: Path) -> None:
    save, output = {"every": 2, "keep_steps": True}, str(tmp_path / "runs" / "a")
    run(toy_recipe(tmp_path, train={"steps": 5}, save=save, output=output))
    adapters = Project(tmp_path.resolve()).adapters()
    assert list(adapters) == ["a", "a step 2", "a step 4"]
    learned = [read_adapter(path).header.training["steps"] for path in adapters.values()]
    assert learned == [5, 2, 4]
    assert not equal(adapters["a step 2"], adapters["a"])
    (tmp_path / "runs/a/steps/notes.txt").write_text("somebody's")
    run(toy_recipe(tmp_path, train={"steps": 3}, save=save, output=output), overwrite=True)
    left = [path.name for path in sorted((tmp_path / "runs/a/steps").iterdir())]
    assert left == ["notes.txt", "step_000002.safetensors"]


def test_overwrite_trains_anew(tmp_path: Path) -> None:
    first = run(toy_recipe(tmp_path, train=SHORT))
    again = run(toy_recipe(tmp_path, train={"steps": 3}), overwrite=True)
    assert (first.steps, again.steps) == (4, 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_same_command_goes_on(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handler, said = signal.getsignal(number), list[str]()
    recipe = toy_recipe(unbroken, output=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        after_step(patch, lambda step: os.kill(os.getpid(), number) if step == 7 else None)
        result = run(recipe, log=said.append)
    assert not result.finished
    assert said[-1] == "stopped after step 7 of 12 and saved; the same command goes on"
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").step == 7
    assert signal.getsignal(number) is handler
    assert run(recipe, log=said.append).finished
    assert "going on after step 7 of 12" in said
    adapter = tmp_path / "run" / "adapter.safetensors"
    assert equal(adapter, unbroken / "run" / "adapter.safetensors")
    assert len(read_adapter(adapter).header.training) > 3
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").step == STEPS


def test_killed_twice_it_ends_bit_identical(
    tmp_path: Path, unbroken: Path, nursery: Nursery
) -> None:
    """Kill -9 a process soon after two checkpoints; the third, here, ends as if never killed."""
    recipe = toy_recipe(unbroken, output=str(tmp_path / "run"), save={"every": 1})
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    program = (
        "from pathlib import Path; from customize.recipe import Recipe; "
        "from customize.training.run import run_recipe; "
        "recipe = Recipe.model_validate_json(Path('recipe.json').read_text()); "
        "run_recipe(recipe, log=lambda _: None, progress=False)"
    )
    checkpoint, reached = tmp_path / "run" / "checkpoint.safetensors", list[int]()
    for least, delay in ((2, 0.02), (5, 0.0)):
        child = nursery.start(program, tmp_path / "log.txt", folder=tmp_path)
        deadline = time.monotonic() + 200
        while not (checkpoint.exists() and read_checkpoint(checkpoint).step >= least):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(delay)
        child.kill(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL  # it did not end by itself
        reached.append(read_checkpoint(checkpoint).step)
    assert 2 <= reached[0] < STEPS
    assert reached[0] < reached[1] or reached[0] >= 5
    assert run(recipe).finished
    adapter = tmp_path / "run" / "adapter.safetensors"
    assert equal(adapter, unbroken / "run" / "adapter.safetensors")
    assert not list((tmp_path / "run").rglob(".*.tmp"))


def test_a_changed_recipe_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        after_step(patch, lambda step: os.kill(os.getpid(), signal.SIGINT))
        run(toy_recipe(tmp_path, train=SHORT))
    pairs = tmp_path / "pairs"
    with pytest.raises(TrainingError, match=r"train\.batch: 4 -> 2.*--overwrite"):
        run(toy_recipe(tmp_path, train={"batch": 2, **SHORT}))
    source = (pairs / "s" / "0.png").read_bytes()
    (pairs / "s" / "0.png").write_bytes((pairs / "s" / "1.png").read_bytes())
    with pytest.raises(TrainingError, match="pairs of my_dog"):
        run(toy_recipe(tmp_path, train=SHORT))
    (pairs / "s" / "0.png").write_bytes(source)
    unimportant = toy_recipe(tmp_path, train={"gradient_checkpointing": True, **SHORT})
    assert run(unimportant).finished


def test_the_vae_is_not_in_memory_while_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    fresh = Fresh(AutoencoderKL, CLIPTextModel)
    seen: list[tuple[int, ...]] = []
    after_step(monkeypatch, lambda _: seen.append(fresh.counts()))
    concept = {"name": "my_dog", "pairs": str(toy_pairs(tmp_path / "plain", text="make it red"))}
    recipe = toy_recipe(tmp_path, concepts=[concept], train=SHORT, preview={"every": 2})
    run(recipe)
    assert seen == [(0, 0)] * 4  # without a word to learn the text encoder is gone too


def test_previews_show_everything_score_the_unseen_and_leave_training_alone(
    tmp_path: Path, unbroken: Path
) -> None:
    preview = {"every": 5, "count": 1, "images": str(unbroken / "unseen")}
    recipe = toy_recipe(unbroken, output=str(tmp_path / "run"), preview=preview)
    result = run(recipe)
    adapter = tmp_path / "run" / "adapter.safetensors"
    assert equal(adapter, unbroken / "run" / "adapter.safetensors")
    sheets = sorted(path.name for path in (tmp_path / "run" / "previews").iterdir())
    assert sheets == ["step_000005.png", "step_000010.png", "step_000012.png"]
    with Image.open(tmp_path / "run" / "previews" / sheets[0]) as sheet:
        assert sheet.width > 5 * 192
        assert sheet.height > 2 * 192
    best_path = tmp_path / "run" / "best.safetensors"
    assert result.best == best_path
    best, last = (read_adapter(path).header.training for path in (best_path, adapter))
    assert best["best_held_out_error"] == last["best_held_out_error"]
    assert best["steps"] in (5, 10, 12)


def test_plain_pictures_are_shown_and_not_scored(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    for name in ("unseen/pairs.jsonl", "unseen/t"):
        path = tmp_path / name
        path.rename(tmp_path / path.name)
    pictures = str(tmp_path / "unseen" / "s")
    result = run(toy_recipe(tmp_path, train=SHORT, preview={"every": 4, "images": pictures}))
    assert result.best is None
    with Image.open(recipe.output / "previews" / "step_000004.png") as sheet:
        assert sheet.height > 4 * 192  # two trained on, two not


def test_several_concepts_regularization_flips_epochs_and_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frequencies: list[float] = []
    real = open_session.Session

    def spy(**fields: Any) -> Any:
        frequencies.extend(sample.frequency for sample in fields["samples"])
        return real(**fields)

    monkeypatch.setattr(open_session, "Session", spy)
    look = toy_pairs(tmp_path / "look", first_seed=200, text="make it blue")
    rehearsed = toy_pairs(tmp_path / "rehearsed", first_seed=100, text="make it red")
    recipe = toy_recipe(tmp_path)
    recipe = toy_recipe(
        tmp_path,
        concepts=[
            *[concept.model_dump() for concept in recipe.concepts],
            {"name": "look", "pairs": str(look), "weight": 3.0},
        ],
        adapter={"method": "low_rank", "rank": 2, "text_encoder": True},
        train={"epochs": 2, "steps": None, "ema": 0.9, "min_snr": 5.0, "schedule": "cosine"},
        preservation={"regularization_pairs": str(rehearsed), "regularization_share": 0.2},
        pairs={"flip": True},
        preview={"every": 2},
    )
    result = run(recipe)
    assert result.steps == math.ceil(2 * 6 / (4 * 0.8))
    # 3 pairs and their mirrors each: 0.8 in shares of 1 to 3, and 0.2
    assert frequencies == pytest.approx([0.2 / 6] * 6 + [0.6 / 6] * 6 + [0.2 / 6] * 6)
    assert result.adapter is not None
    adapter = read_adapter(result.adapter)
    assert [concept.name for concept in adapter.header.concepts] == ["my_dog", "look"]
    assert adapter.header.text_encoder_rank == 2
    assert any(name.startswith("text_encoder.") for name in adapter.tensors)
    assert (recipe.output / "previews" / "step_000002.png").exists()


def break_loss(patch: pytest.MonkeyPatch, call: int, act: Callable[[Any], Any]) -> None:
    """Do something else to the loss of one call, counted from 1."""
    real, calls = steps.loss, list[int]()

    def loss(*arguments: Any) -> Any:
        calls.append(1)
        found = real(*arguments)
        return act(found) if len(calls) == call else found

    patch.setattr(steps, "loss", loss)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_loss(monkeypatch, 3, lambda losses: replace(losses, total=losses.total * math.nan))
    with pytest.raises(TrainingError, match=r"step 3: the loss became nan.*after step 2 is kept"):
        run(toy_recipe(tmp_path))
    adapter = read_adapter(tmp_path / "run" / "last_good.safetensors")
    assert adapter.header.training["steps"] == 2
    assert all(adapter.tensors[name].isfinite().all() for name in adapter.tensors)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_an_adapter_that_does_not_move_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 4: the adapter has not moved.*learning_rate"):
        run(toy_recipe(tmp_path, train={"learning_rate": 1e-30, **SHORT}))
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_out_of_memory_names_the_settings_that_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    break_loss(monkeypatch, 2, fail)
    with pytest.raises(TrainingError) as caught:
        run(toy_recipe(tmp_path, train={"optimizer": "adamw"}, pairs={"resolution": 128}))
    message = str(caught.value)
    for setting in (
        "train.gradient_checkpointing: true",
        "train.batch: 2 with 2 times the train.accumulation",
        "train.optimizer: adamw8bit",
        "base.quantization: nf4",
        "pairs.resolution: 64",
    ):
        assert setting in message


def test_other_errors_are_not_taken_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("shapes differ")

    break_loss(monkeypatch, 1, fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(toy_recipe(tmp_path))


def test_faulty_pairs_stop_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(tmp_path)
    monkeypatch.setattr("customize.training.run.open_session", None)
    target = tmp_path / "pairs" / "t" / "1.png"
    target.write_bytes((tmp_path / "pairs" / "s" / "1.png").read_bytes())
    with pytest.raises(PairsError, match=r"pairs.jsonl:2"):
        run(recipe)


def test_other_trackers_are_used_where_installed_and_missed_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []

    class Tracker:
        init = staticmethod(lambda **facts: calls.append(("init", facts)))
        log = staticmethod(lambda figures, step: calls.append(("log", (step, figures))))
        finish = staticmethod(lambda: calls.append(("finish", None)))

    monkeypatch.setitem(sys.modules, "trackio", Tracker)
    monkeypatch.setitem(sys.modules, "wandb", None)
    said: list[str] = []
    run(toy_recipe(tmp_path, train=SHORT, save={"log": ["wandb", "trackio"]}), log=said.append)
    assert any("wandb is not installed; run `pip install wandb`" in line for line in said)
    assert [name for name, _ in calls] == ["init", *["log"] * 4, "finish"]
    assert calls[0][1]["config"]["train"]["batch"] == 4
    step, figures = calls[1][1]
    assert step == 1
    assert figures["loss"] > 0
    assert list((tmp_path / "run" / "logs").iterdir())  # TensorBoard always


def test_accumulated_batches_have_the_gradient_of_one_large_batch(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divided once, not by accelerate again: the norm to be logged and clipped is the same."""

    def plain(_: Any, attached: Attached, batch: Batch, *__: Any) -> Losses:
        learned = attached.tensors().values()
        slope_B = batch.mean_BChw.square().mean((1, 2, 3))
        error_B = slope_B * torch.stack([p.sum() for p in learned]).sum()
        expected.append(float(slope_B.mean()) * sum(p.numel() for p in learned) ** 0.5)
        return Losses(error_B.mean(), error_B.detach(), 0)

    expected, norms = list[float](), list[float]()
    monkeypatch.setattr(steps, "loss", plain)
    monkeypatch.setattr(Reports, "step", lambda _, step: norms.append(step.gradient_norm))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    for accumulation in (1, 2, 4):
        train = {"steps": 1, "batch": 4 // accumulation, "accumulation": accumulation}
        run(toy_recipe(unbroken, output=str(tmp_path / f"{accumulation}"), train=train))
    assert expected[0] > 1e-3
    assert norms == pytest.approx([expected[0]] * 3)


@pytest.fixture(scope="module")
def short(unbroken: Path) -> dict[str, Tensor]:
    """Return what a short run learns that computes as usual."""
    return load_file(
        run(toy_recipe(unbroken, output=str(unbroken / "short"), train=SHORT)).adapter or ""
    )


@pytest.mark.parametrize(
    "fields", [{"precision": "bf16"}, {"gradient_checkpointing": True}, {"accumulation": 2}]
)
def test_other_ways_to_compute_learn_alike(
    tmp_path: Path, fields: dict[str, Any], unbroken: Path, short: dict[str, Tensor]
) -> None:
    recipe = toy_recipe(unbroken, output=str(tmp_path / "run"), train={**SHORT, **fields})
    result = run(recipe)
    assert result.adapter is not None
    state: dict[str, Tensor] = load_file(result.adapter)
    sizes = [sum(float(t.norm()) for t in found.values()) for found in (state, short)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.3)


def test_a_compiled_denoiser_learns_the_same(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as for any compiler; what it makes of the trace is its own affair, and slow."""
    compiled, real = list[nn.Module](), torch.compile

    def trace(module: nn.Module) -> Any:
        compiled.append(module)
        return real(module, backend="eager")

    monkeypatch.setattr(torch, "compile", trace)
    states: list[dict[str, Tensor]] = []
    for asked in (False, True):
        made = run(
            toy_recipe(
                unbroken,
                output=str(tmp_path / f"{asked}"),
                train={"steps": 2, "compile": asked},
                preservation={"share": 0.0},  # one shape, so one trace
            )
        ).adapter
        states.append(load_file(made or ""))
    assert len(compiled) == 1
    assert len(states[0]) > 10
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_several_processes_learn_together(tmp_path: Path) -> None:
    """Processes that preserve different numbers of samples in a step end with one adapter."""
    recipe = toy_recipe(tmp_path, train={"accumulation": 2, **SHORT}, preview={"every": 2})
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json(exclude_none=True))
    door = Path(customize.__file__).parent / "train_concept.py"
    command = ["torch.distributed.run", "--nproc_per_node", "2", str(door)]
    subprocess.run(
        [sys.executable, "-m", *command, "--recipe", str(tmp_path / "recipe.yaml")],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    header = read_adapter(tmp_path / "run" / "adapter.safetensors").header
    assert header.training["processes"] == 2
    assert header.training["steps"] == 4
