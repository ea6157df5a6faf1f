"""Refining by choices: pairs of winners, and preference training as its paper has it."""

from __future__ import annotations

import math
import os
import signal
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.bases import toy_example, toy_resolved
from builders.choices import made
from builders.pairs import scene
from builders.runs import toy_recipe
from PIL import ImageDraw
from safetensors.torch import load_file

from customize.adapters import LowRank, attach
from customize.adapters.file import read_adapter
from customize.cli.main import main
from customize.errors import RecipeError, TrainingError
from customize.families import open_encoder, open_family
from customize.families.base import Base
from customize.pairs.find import find_pairs
from customize.scoring.choices.keep import ChoiceFolder
from customize.shapes import Encoded
from customize.training.batches import Sample, stack
from customize.training.loss import Goal
from customize.training.progress import Reports
from customize.training.refining.chosen import Chosen, stack_chosen
from customize.training.refining.held_out import HeldOut, split
from customize.training.refining.preference import Preference, beta_for, margins
from customize.training.refining.refine import refine
from customize.training.run import run_recipe
from customize.training.steps import Step


def bright_wins(folder: Path, count: int = 6) -> ChoiceFolder:
    """Keep choices in each of which a light corner is preferred to a dark one."""
    choices = ChoiceFolder(folder)
    for seed in range(count):
        light, dark = (scene(seed, (32, 32)) for _ in range(2))
        ImageDraw.Draw(light).rectangle((0, 0, 12, 12), "white")
        ImageDraw.Draw(dark).rectangle((0, 0, 12, 12), "black")
        results = made("a", seed, light), made("c", seed, dark)
        first, second = results if seed % 2 else results[::-1]
        won = "first" if seed % 2 else "second"
        choices.add(scene(seed, (32, 32)), "add <my-dog>", first, second, won)
    return choices


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run and its choices."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = toy_recipe(folder, train={"steps": 6}, adapter={"method": "low_rank", "rank": 4})
    with chdir(folder):  # headers name what lies in the working folder, and no place of a machine
        run_recipe(recipe, log=lambda _: None, progress=False)
    bright_wins(folder / "choices")
    return folder


def toy_chosen(base: Base, count: int = 2) -> list[Chosen]:
    """Return choices between random latents, which count in their corner alone."""
    encoded = open_encoder(base).encode(toy_example(0, "make it red"), as_tokens=False)
    generator, mask_hw = torch.Generator().manual_seed(0), torch.zeros(16, 16)
    mask_hw[:6, :6] = 1

    def result() -> Encoded:
        return replace(encoded, target_mean_Chw=torch.randn((4, 16, 16), generator=generator))

    return [Chosen(result(), result(), mask_hw) for _ in range(count)]


def test_the_margin_is_the_papers_and_masked(tmp_path: Path) -> None:
    base = toy_resolved(tmp_path)
    family = open_family(base)
    attached = attach(family, LowRank(rank=2), seed=0)
    reference, generator = attached.state(), torch.Generator().manual_seed(1)
    batch = stack_chosen(toy_chosen(base))
    noise_BChw = torch.randn(batch.winner_BChw.shape, generator=generator)
    level_B = torch.tensor([300, 700])

    def found() -> torch.Tensor:
        return margins(family, attached, reference, batch, noise_BChw, level_B)[0]

    assert torch.equal(found(), torch.zeros(2)), "nothing was learned yet"
    for parameter in attached.adapter_parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    live, margin_B = attached.state(), found()
    assert all(torch.equal(live[name], attached.state()[name]) for name in live)

    def errors(clean_BChw: torch.Tensor) -> torch.Tensor:
        noisy_BChw = family.objective.corrupt(clean_BChw, noise_BChw, level_B)
        target_BChw = family.objective.target(clean_BChw, noise_BChw, level_B)
        with torch.no_grad():
            predicted_BChw = family.predict(noisy_BChw, level_B, batch.conditions)
        corner_BChw = (predicted_BChw - target_BChw)[:, :, :6, :6]
        return corner_BChw.square().flatten(1).mean(1)

    ours = errors(batch.winner_BChw), errors(batch.loser_BChw)
    attached.load(reference)
    theirs = errors(batch.winner_BChw), errors(batch.loser_BChw)
    told_B = -((ours[0] - theirs[0]) - (ours[1] - theirs[1]))
    assert torch.allclose(margin_B, told_B, atol=1e-5)
    assert margin_B.abs().min() > 1e-4


def test_beta_keeps_the_mean_gradient_factor() -> None:
    margins = [0.5, 1.0, 4.0, -0.2]
    beta = beta_for(margins, 100.0)
    factor = sum(1 / (1 + math.exp(beta * m)) for m in margins) / 4
    assert factor == pytest.approx(0.2) or beta == 100.0
    assert beta_for([], 50.0) == 50.0
    assert beta_for([2.0, 2.0], 50.0) == pytest.approx(math.log(4) / 2)


def test_a_fifth_is_held_out_and_few_are_all_learned_from(tmp_path: Path) -> None:
    chosen = toy_chosen(toy_resolved(tmp_path), 10)
    learned, held = split(chosen, 0)
    assert (len(learned), len(held)) == (8, 2)
    assert not set(map(id, learned)) & set(map(id, held))
    assert (len(split(chosen[:4], 0)[0]), len(split(chosen[:4], 0)[1])) == (4, 0)


@pytest.mark.parametrize("how", ["pairs", "preference"])
def test_refining_moves_the_adapter_and_says_from_what(
    trained: Path, how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    output = trained / f"by_{how}"
    asked = ["refine", str(trained / "run"), "--choices", str(trained / "choices"), "--how", how]
    assert main([*asked, "--steps", "10", "-o", str(output)]) == 0
    said = capsys.readouterr().out
    header = read_adapter(output / "adapter.safetensors").header
    assert (header.training["refined_by"], len(header.training["refined"])) == (how, 64)
    assert (how == "preference") == ("5 choices to learn from, 1 held out" in said)
    if how == "pairs":
        before, after = (
            load_file(trained / run / "adapter.safetensors") for run in ("run", "by_pairs")
        )
        assert any(not torch.equal(before[name], after[name]) for name in before)
        pairs = find_pairs(trained / "choices" / "winners_by_pairs" / "my_dog.jsonl").pairs
        assert len(pairs) == 3 + 6
        assert sum(pair.weight for pair in pairs[3:]) == pytest.approx(3.0)
    assert main([*asked, "-o", str(output)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_preference_training_learns_what_was_preferred(tmp_path: Path) -> None:
    base = toy_resolved(tmp_path)
    family, encoder = open_family(base), open_encoder(base)
    attached = attach(family, LowRank(rank=4), seed=0)
    encoded = encoder.encode(toy_example(0, "make it red"), as_tokens=False)
    chosen, reference = toy_chosen(base, 4), attached.state()
    preference = Preference(chosen, reference, at_once=4, seed=0)
    goal = Goal(empty_text=encoder.text("", as_tokens=False))
    optimizer = torch.optim.Adam(attached.adapter_parameters(), lr=1e-2)
    for step in range(15):
        generator = torch.Generator().manual_seed(step)
        batch = stack([Sample(encoded, encoded)] * 2)
        losses = preference(family, attached, batch, goal, generator)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    watch = HeldOut(chosen, reference, at_once=6, seed=1)
    share, better = watch.look(family, attached, 15)
    assert share >= 0.75, "of noise it was not trained with"
    assert better
    assert watch.best_step == 15


def test_stopped_preference_training_goes_on_as_if_it_had_not(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setattr("customize.training.refining.refine.EVERY", 2)
    monkeypatch.setattr("customize.training.refining.held_out.PATIENCE", 3)
    monkeypatch.setattr("customize.training.refining.held_out.DRAWS", 4)
    real = Reports.step

    def refined(output: Path, stop: int | None = None) -> tuple[list[str], bytes]:
        def step(self: Reports, step: Step) -> None:
            real(self, step)
            if step.step == stop:
                os.kill(os.getpid(), signal.SIGINT)

        said: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(Reports, "step", step)
            run, choices = trained / "run", trained / "choices"
            rate = 1e-2  # so that an earlier step is the best
            refine(
                run,
                choices,
                output,
                "preference",
                steps=8,
                learning_rate=rate,
                log=said.append,
                progress=False,
            )
        adapter = output / "adapter.safetensors"
        tensors = load_file(adapter) if adapter.exists() else {}
        return said, b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))

    said, unbroken = refined(tmp_path / "unbroken")
    looks = [line for line in said if "held-out choices" in line or "best after" in line]
    assert len(looks) > 3
    output = tmp_path / "stopped"
    between, after, rest = refined(output, 3), refined(output, 4), refined(output)  # of two looks
    for told, nothing in (between, after):
        assert nothing == b""
        assert "stopped after" in told[-1]
    assert rest[1] == unbroken
    told_again = (*between[0], *after[0], *rest[0])
    assert [line for line in told_again if line in looks] == looks


def test_refining_refuses_what_it_cannot_learn(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="work in the folder in which it was trained"):
        refine(trained / "run", trained / "choices", tmp_path / "o", "pairs")
    monkeypatch.chdir(trained)
    undecided = ChoiceFolder(tmp_path / "c")
    undecided.add(scene(0), "add <my-dog>", made("a", 0), made("c", 1), "tie")
    with pytest.raises(TrainingError, match="nothing was decided"):
        refine(trained / "run", tmp_path / "c", tmp_path / "o", "pairs")
    with pytest.raises(TrainingError, match="the run that is refined is there"):
        refine(trained / "run", trained / "choices", trained / "run", "pairs")
    assert not (tmp_path / "o").exists()
