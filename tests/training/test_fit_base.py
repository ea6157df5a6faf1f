"""A text-to-image model becomes an editing base: unchanged at first, then fitted to pairs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_base, toy_example, toy_xl_base
from builders.runs import toy_pairs
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from customize import families
from customize.cli.main import main
from customize.editing import Editor
from customize.errors import BaseModelError, OutputExistsError, RecipeError, TrainingError
from customize.families.base import Base, resolve_base, resolve_plain
from customize.families.stable_diffusion.text_to_image import (
    open_text_to_image,
    resolve_text_to_image,
)
from customize.files.manifest import NAME as MANIFEST
from customize.files.manifest import Manifest
from customize.pairs.find import find_pairs
from customize.recipe.editing_base import EditingBaseRecipe, load_editing_base
from customize.recipe.embedded_base import is_embedded_base
from customize.training.base_fitting import fit_base, open_fit
from customize.training.base_fitting.widen import widened, write_widened
from customize.training.session import Session

FIRST = "conv_in.weight"
UNET = "unet/diffusion_pytorch_model.safetensors"
LEVEL_B = torch.tensor([3, 800])


def plain_model(folder: Path, make: Callable[[Path], Path] = toy_base) -> Path:
    """Write a toy text-to-image model: an editing base whose UNet reads four channels."""
    make(folder)
    weights = load_file(folder / UNET)
    weights[FIRST] = weights[FIRST][:, :4].contiguous()
    save_file(weights, folder / UNET, metadata={"format": "pt"})
    _edit(folder / "unet/config.json", in_channels=4)
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    _edit(
        folder / "model_index.json", _class_name="StableDiffusionPipeline", safety_checker=checker
    )
    return folder


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return plain_model(tmp_path / "plain")


def _recipe(folder: Path, plain: Path, **changes: Any) -> EditingBaseRecipe:
    if not (folder / "pairs").exists():
        toy_pairs(folder / "pairs", text="make it night")
    values: dict[str, Any] = {
        "start": str(plain),
        "pairs": folder / "pairs",
        "output": folder / "run",
        "samples": 24,
        "batch": 4,
        "warmup": 0,
        "learning_rate": 5e-3,
        "ema": 0.9,
        "resolution": 32,
        "optimizer": "adamw",
        "precision": "no",
        "save_every": 3,
    }
    return EditingBaseRecipe.model_validate({**values, **changes})


def _fit(recipe: EditingBaseRecipe) -> Path | None:
    return fit_base.fit_editing_base(recipe, log=lambda _: None, progress=False)


@pytest.mark.parametrize("make", [toy_base, toy_xl_base])
@torch.no_grad()
def test_a_widened_model_predicts_what_the_plain_one_did(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    start = resolve_plain(str(plain_model(tmp_path / "plain", make)))
    write_widened(start, tmp_path / "wide")
    base = resolve_base(str(tmp_path / "wide"))
    assert base.family == start.family
    unet: Any = UNet2DConditionModel.from_pretrained(start.folder / "unet")
    family, encoder = families.open_family(base), families.open_encoder(base)
    conditions = encoder.encode(toy_example(), as_tokens=False).conditions
    batch = {key: torch.stack([value] * 2) for key, value in conditions.items()}
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    told: dict[str, Any] = {"encoder_hidden_states": batch["text"]}
    if "pooled" in batch:
        added = {"text_embeds": batch["pooled"], "time_ids": batch["time_ids"]}
        told["added_cond_kwargs"] = added
    expected = unet(noisy, LEVEL_B, **told).sample
    torch.testing.assert_close(family.predict(noisy, LEVEL_B, batch), expected)
    other = {**batch, "source": torch.randn(batch["source"].shape)}
    assert torch.equal(family.predict(noisy, LEVEL_B, other), family.predict(noisy, LEVEL_B, batch))
    index = json.loads((base.folder / "model_index.json").read_text())
    assert index["_class_name"] == families.profile_of(base.family).pipeline
    loaded = DiffusionPipeline.from_pretrained(base.folder)
    assert type(loaded).__name__ == index["_class_name"]


def test_an_editing_base_starts_as_its_text_to_image_twin(tmp_path: Path) -> None:
    start, _ = resolve_text_to_image("embedded")
    write_widened(start, tmp_path / "wide")
    wide = load_file(tmp_path / "wide" / UNET)[FIRST]
    twin: Any = open_text_to_image(start).unet
    assert torch.equal(wide[:, :4], twin.conv_in.weight)
    assert not wide[:, 4:].any()
    assert resolve_base(str(tmp_path / "wide")).family == start.family


def test_widening_keeps_bias_and_precision() -> None:
    weights = {FIRST: torch.ones(2, 4, 3, 3).half(), "conv_in.bias": torch.arange(2.0)}
    wide = widened(weights, FIRST, 4)
    assert wide[FIRST].shape == (2, 8, 3, 3)
    assert wide[FIRST].dtype is torch.float16
    assert torch.equal(wide[FIRST][:, :4], weights[FIRST])
    assert not wide[FIRST][:, 4:].any()
    assert wide["conv_in.bias"] is weights["conv_in.bias"]


def test_a_fit_learns_and_leaves_a_base_that_edits(plain: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, plain, samples=160, ema=None)
    model = _fit(recipe)
    assert model == tmp_path / "run/model"
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"model", "cache", "logs", "loss.png", MANIFEST}
    base = resolve_base(str(model))
    configs = [path.read_text() for path in base.folder.rglob("*.json")]
    assert len(configs) > 5
    assert not [text for text in configs if str(tmp_path) in text]
    first = load_file(base.folder / UNET)[FIRST]
    assert first[:, 4:].abs().max() > 1e-3
    before, after = (_error(folder, tmp_path) for folder in (plain, base.folder))
    assert after < 0.8 * before
    picture = tmp_path / "pairs/s/0.png"
    assert Editor.from_base(str(model), device="cpu").edit(picture, "make it night", steps=1)
    with pytest.raises(OutputExistsError, match=r"it is there already.*to fit again"):
        _fit(recipe)


@torch.no_grad()
def _error(folder: Path, tmp_path: Path) -> float:
    """Measure the loss on the pairs at fixed noise, widening a plain model first."""
    from customize.pairs.buckets import load_example
    from customize.pairs.find import find_pairs

    if json.loads((folder / "unet/config.json").read_text())["in_channels"] == 4:
        write_widened(resolve_plain(str(folder)), tmp_path / "unfitted")
        folder = tmp_path / "unfitted"
    base = resolve_base(str(folder))
    family, encoder = families.open_family(base), families.open_encoder(base)
    errors: list[torch.Tensor] = []
    for number, pair in enumerate(find_pairs(tmp_path / "pairs").pairs):
        encoded = encoder.encode(load_example(pair, (32, 32)), as_tokens=False)
        clean = encoded.target_mean_Chw.expand(8, -1, -1, -1)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(number))
        level_B = torch.arange(100, 900, 100)
        conditions = {k: v.expand(8, *v.shape) for k, v in encoded.conditions.items()}
        noisy = family.objective.corrupt(clean, noise, level_B)
        target = family.objective.target(clean, noise, level_B)
        errors.append((family.predict(noisy, level_B, conditions) - target).square().mean())
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("how", ["signal", "kill"])
def test_a_stopped_fit_goes_on_as_if_never_stopped(
    plain: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _fit(_recipe(tmp_path, plain))
    broken = _recipe(tmp_path, plain, output=tmp_path / "broken")
    told = fit_base.Reports.step

    def stop(reports: Any, step: Any) -> None:
        told(reports, step)
        if step.step == 4:
            if how == "kill":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(fit_base.Reports, "step", stop)
        if how == "kill":
            with pytest.raises(KeyboardInterrupt):
                _fit(broken)
        else:
            assert _fit(broken) is None
    resumed = _fit(broken)
    assert whole is not None
    assert resumed is not None
    first, second = load_file(whole / UNET), load_file(resumed / UNET)
    assert len(first) > 50
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("place", ["_encode", "make_optimizer"])
def test_running_out_of_memory_before_the_first_step_is_told(
    plain: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(open_fit, place, fail)
    with pytest.raises(
        TrainingError, match=r"room for batch: 4; set batch: 2 with accumulation: 2"
    ):
        _fit(_recipe(tmp_path, plain))


def _opened(recipe: EditingBaseRecipe) -> tuple[Session, Base]:
    """Open a fit as the command does."""
    plain, pairs = resolve_plain(recipe.start), find_pairs(recipe.pairs).pairs
    Manifest(recipe.output, "fit-base").begin(fit_base._WRITTEN)
    views = open_fit.views_for(recipe, plain, pairs)
    return open_fit.open_fit(recipe, plain, views, progress=False)


def test_a_changed_fit_does_not_go_on(plain: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, plain)
    fit, _ = _opened(recipe)
    next(fit.steps())
    fit.save(recipe.output / "checkpoint.safetensors")
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.005 -> 0\.001"):
        _fit(_recipe(tmp_path, plain, learning_rate=1e-3))
    with pytest.raises(AssertionError, match="preserves nothing"), fit.attached.switched_off():
        pass


def test_an_average_begins_at_the_start_and_movement_at_zero(plain: Path, tmp_path: Path) -> None:
    fit, base = _opened(_recipe(tmp_path, plain))
    assert fit.attached.movement().adapter == 0
    next(fit.steps())
    assert fit.attached.movement().adapter > 0
    assert fit.average is not None
    now, mean = fit.attached.state(), fit.average.tensors
    start = load_file(base.folder / UNET)
    assert now.keys() == mean.keys() == {f"denoiser.{name}" for name in start}
    name = f"denoiser.{FIRST}"
    torch.testing.assert_close(mean[name], start[FIRST].lerp(now[name], 0.9))


def test_starts_of_other_kinds_are_refused(plain: Path, tmp_path: Path) -> None:
    _edit(plain / "unet/config.json", in_channels=9)
    with pytest.raises(BaseModelError, match=r"start .*an inpainting model.*text-to-image"):
        resolve_plain(str(plain))
    with pytest.raises(BaseModelError, match="this is an editing model"):
        resolve_plain("embedded")
    assert not (tmp_path / "run").exists()


def test_the_command_line_fits(plain: Path, tmp_path: Path, capsys: Any) -> None:
    recipe = _recipe(tmp_path, plain, samples=4)
    path = tmp_path / "base.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    assert not is_embedded_base(path)
    assert main(["fit-base", str(path), "--from", "embedded"]) == 2
    assert "names its own start" in capsys.readouterr().err
    assert main(["fit-base", str(path)]) == 0
    assert (tmp_path / "run/model/model_index.json").exists()
    assert main(["fit-base", str(path)]) == 2


def test_the_recipe_that_ships_is_read_and_faults_are_told(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "recipes/base/from_stable_diffusion.yaml"
    assert not is_embedded_base(shipped)
    assert is_embedded_base(shipped.with_name("embedded.yaml"))
    assert not is_embedded_base(tmp_path / "missing.yaml")
    text = shipped.read_text().replace("../../examples/data/my_dog", str(tmp_path))
    path = tmp_path / "base.yaml"
    path.write_text(text)
    recipe = load_editing_base(path)
    assert recipe == EditingBaseRecipe(
        start="stable-diffusion-v1-5/stable-diffusion-v1-5", pairs=tmp_path, accumulation=4
    )


def test_the_two_stages_in_miniature_begin_with_the_base_that_ships(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "recipes/base/two_stages_embedded.yaml"
    path = tmp_path / "base.yaml"
    path.write_text(shipped.read_text().replace("../../runs/triplets/pairs.jsonl", str(tmp_path)))
    recipe = load_editing_base(path)
    assert (recipe.start, recipe.steps, recipe.resolution) == ("embedded", 1500, 64)


def test_every_fault_of_a_recipe_for_a_base_is_told_with_line_and_cure(tmp_path: Path) -> None:
    path = tmp_path / "base.yaml"
    path.write_text(
        f"""
pairs: {tmp_path}
batch: 0
wramup: 500
dropout: {{text: 0.95}}
optimizer: adam
"""
    )
    with pytest.raises(RecipeError) as caught:
        load_editing_base(path)
    assert (
        str(caught.value)
        == f"""\
recipe {path}: 5 faults
  {path} start: missing; add `start: stable-diffusion-v1-5/stable-diffusion-v1-5`
  {path}:3 batch: found 0; must be at least 1
  {path}:4 wramup: unknown key; did you mean 'warmup'?
  {path}:5 dropout: text + image + both = 1.05; lower them to a sum of at most 1
  {path}:6 optimizer: found 'adam'; did you mean 'adamw'? the choices are adamw8bit, adamw"""
    )
    path.write_text("start: [")
    with pytest.raises(RecipeError, match=r"base\.yaml:1: not YAML"):
        load_editing_base(path)
    with pytest.raises(RecipeError, match=r"no such file; did you mean 'base\.yaml'"):
        load_editing_base(tmp_path / "bse.yaml")
