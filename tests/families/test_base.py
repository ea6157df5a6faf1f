"""Bases resolve from folders, files and the hub; each wrong kind gives one clear message."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders.bases import toy_base
from PIL import Image
from safetensors.torch import load_file, save_file

from customize import families
from customize.cli.main import main
from customize.errors import BaseModelError
from customize.families.base import Base, resolve_base
from customize.families.loading import weight_files
from customize.training.device import mixed_precision

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_base(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "base"))


def _edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


def test_a_folder_resolves(good: Path) -> None:
    base = resolve_base(str(good))
    assert (base.family, base.resolution, base.multiple) == ("instruct_pix2pix", 32, 8)
    assert base.dtype("cpu") is torch.float32
    assert resolve_base(str(good), precision="bfloat16").dtype("cpu") is torch.bfloat16


@pytest.mark.parametrize("generation", ["Turing", "Ampere"])
def test_a_gpu_that_only_emulates_bfloat16_takes_float16(
    good: Path, generation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch answers: Turing and older can be asked for bfloat16 but have no units for it."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or generation == "Ampere"

    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    own = {"Turing": torch.float16, "Ampere": torch.bfloat16}[generation]
    assert resolve_base(str(good)).dtype("cuda") is own
    assert mixed_precision("auto") == {"Turing": "fp16", "Ampere": "bf16"}[generation]


def test_fingerprint_is_of_the_weights(
    good: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for whole in (weight_files._WHOLE, 0):  # hashed in full, then sampled as large files are
        monkeypatch.setattr(weight_files, "_WHOLE", whole)
        monkeypatch.setattr(weight_files, "_BLOCK", 1024)
        original = resolve_base(str(good)).fingerprint
        assert resolve_base(str(folder)).fingerprint == original
        weights = load_file(folder / UNET)
        save_file({name: w + 1e-3 for name, w in weights.items()}, folder / UNET)
        assert resolve_base(str(folder)).fingerprint != original
        shutil.copy(good / UNET, folder / UNET)


def test_half_precision_variant_is_taken_where_alone(folder: Path) -> None:
    (folder / UNET).rename(folder / UNET.replace(".safetensors", ".fp16.safetensors"))
    base = resolve_base(str(folder))
    assert base.variant == "fp16"
    families.open_family(base)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "text to image": (lambda f: _edit(f / "unet/config.json", in_channels=4), "text-to-image"),
    "inpainting": (lambda f: _edit(f / "unet/config.json", in_channels=9), "inpainting"),
    "odd channels": (
        lambda f: _edit(f / "unet/config.json", in_channels=5),
        "unknown kind .5 input channels",
    ),
    "transformer": (lambda f: _edit(f / "model_index.json", transformer=["a", "b"]), "transformer"),
    "half an sdxl": (
        lambda f: _edit(f / "model_index.json", text_encoder_2=["a", "b"]),
        "told None beside text_encoder and text_encoder_2",
    ),
    "edm": (
        lambda f: _edit(f / "scheduler/scheduler_config.json", _class_name="EDMEulerScheduler"),
        "noise levels of its own",
    ),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json is missing"),
    "no index": (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
    "no vae": (lambda f: shutil.rmtree(f / "vae"), r"vae.config\.json is missing"),
    "no weights": (lambda f: next((f / "vae").glob("*.safetensors")).unlink(), "no weights"),
    "half a config": (lambda f: (f / "unet/config.json").write_text('{"in_'), "JSON"),
    "list config": (lambda f: (f / "unet/config.json").write_text("[]"), "JSON object"),
    "cut weights": (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-9]), "whole file"),
    "pickle": (lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.bin"), "pickle"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_folders(folder: Path, kind: str) -> None:
    spoil, expected = WRONG[kind]
    spoil(folder)
    with pytest.raises(BaseModelError, match=expected) as caught:
        resolve_base(str(folder))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", ["text to image", "inpainting", "transformer", "cut weights"])
def test_the_command_line_says_it_in_one_line(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = WRONG[kind]
    spoil(folder)
    picture, answer = folder.parent / "in.png", folder.parent / "out.png"
    Image.new("RGB", (32, 32)).save(picture)
    command = ["edit", str(picture), "make it red", "-o", str(answer), "--base", str(folder)]
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert expected in lines[0]
    assert not answer.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "no such file or folder"),
        ("someone/not-in-the-cache", "hub cannot be reached"),
    ],
)
def test_names_that_lead_nowhere(name: str, expected: str) -> None:
    with pytest.raises(BaseModelError, match=expected):
        resolve_base(name)


def test_missing_embedded_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("customize.families.base.EMBEDDED", tmp_path)
    with pytest.raises(BaseModelError, match="fit-base"):
        resolve_base("embedded")


def test_single_file_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(BaseModelError, match="pickle"):
        resolve_base(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_for_weights_is_refused_before_it_is_read(folder: Path) -> None:
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(BaseModelError, match=r"is a named pipe; expected a safetensors file"):
        resolve_base(str(folder))


def test_weights_that_do_not_fit_their_config(folder: Path) -> None:
    _edit(folder / "unet/config.json", block_out_channels=[8, 8, 24])
    base = resolve_base(str(folder))
    assert isinstance(base, Base)
    with pytest.raises(BaseModelError, match="unet cannot be loaded"):
        families.open_family(base)
