"""Sidecars, cards and uploads: what they say, that they never overwrite or leak, every refusal."""

from __future__ import annotations

import io
import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders.bases import toy_header
from builders.uploads import upload_hub
from PIL import Image

from customize.adapters.file import save_adapter
from customize.adapters.header import Header, Taught
from customize.cli.main import main
from customize.errors import ExportError, HubError
from customize.exporting.sharing.model_card import (
    CardPicture,
    card_text,
    latest_preview,
    read_scores,
)
from customize.exporting.sharing.sidecars import plan_sidecars, sidecar
from customize.exporting.sharing.upload import push

TOKEN = "hf_" + "s3cret" * 5  # made up, to look for


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's library talk to this machine; the suite forbids it the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def header() -> Header:
    return toy_header(
        base_name="timbrooks/instruct-pix2pix",
        rank=8,
        concepts=(
            Taught("my_dog", "<my-dog>", "dog", instructions=("turn the dog into <my-dog>",)),
            Taught("brand", instructions=("apply the brand style",)),
        ),
        training={"steps": 200, "seconds": 63.2, "loss": 0.1234567},
        versions={"customize": "0.1"},
        pairs={"my_dog/1.png": "0" * 64},
    )


@pytest.fixture
def adapter(header: Header, tmp_path: Path) -> Path:
    """A run's folder as `customize train` leaves it."""
    run = tmp_path / "run"
    (run / "previews").mkdir(parents=True)
    for step in (5, 10):
        Image.new("RGB", (40, 30), (step, 0, 0)).save(run / "previews" / f"step_{step:06d}.png")
    tensors = {"words.text_encoder.<my-dog>": torch.ones(1, 4)}
    return save_adapter(run / "adapter.safetensors", header, tensors)


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_a_card_has_what_hubs_read(header: Header) -> None:
    shown = CardPicture("images/preview.png", "turn the dog into <my-dog>")
    card = card_text(header, "adapter.safetensors", license_id="mit", pictures=[shown])
    front = front_matter(card)
    assert front["base_model"] == "timbrooks/instruct-pix2pix"
    assert front["base_model_relation"] == "adapter"
    assert front["instance_prompt"] == "<my-dog>"
    assert front["license"] == "mit"
    assert front["library_name"] == "diffusers"
    assert front["pipeline_tag"] == "image-to-image"
    assert {"lora", "instruct-pix2pix"} <= set(front["tags"])
    assert front["widget"] == [
        {"text": "turn the dog into <my-dog>", "output": {"url": "images/preview.png"}}
    ]
    for said in ("apply the brand style", "| loss | 0.1235 |", "--adapter adapter.safetensors"):
        assert said in card


def test_a_base_that_is_no_hub_model_is_not_linked(header: Header) -> None:
    from dataclasses import replace

    local = replace(header, base_name="embedded", concepts=())
    front = front_matter(card_text(local, "a.safetensors"))
    assert front.keys().isdisjoint({"base_model", "base_model_relation", "instance_prompt"})
    assert "widget" not in front


def test_scores_are_read_from_any_json(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text('{"my_dog": {"clip_direction": 0.25, "passed": true}, "count": 3}')
    assert read_scores(path) == {"my dog clip direction": 0.25, "count": 3.0}
    variants = [{"label": "a", "means": {"lpips": None, "psnr": {"mean": 2, "std": 0}}}]
    path.write_text(json.dumps({"format": "customize-scores", "variants": variants}))
    assert read_scores(path) == {"a: psnr": 2.0}
    for wrong in (1, [1], [{"label": "a", "means": {"lpips": None}}], [{"label": "a"}], None):
        path.write_text(json.dumps({"format": "customize-scores", "variants": wrong}))
        with pytest.raises(ExportError, match="it holds no numbers"):
            read_scores(path)
    path.write_text("{")
    with pytest.raises(ExportError, match="expected JSON with scores"):
        read_scores(path)


def test_the_latest_preview_is_shown(adapter: Path, tmp_path: Path) -> None:
    found = latest_preview(adapter)
    assert found is not None
    assert found.name == "step_000010.png"
    assert latest_preview(tmp_path / "elsewhere" / "adapter.safetensors") is None


def test_the_card_command_writes_beside_the_adapter(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", str(adapter)]) == 0
    card = adapter.parent / "README.md"
    assert "choose one with --license" in capsys.readouterr().out
    picture = front_matter(card.read_text())["widget"][0]["output"]["url"]
    assert (adapter.parent / picture).is_file()
    before = card.read_bytes()
    assert main(["card", str(adapter), "--license", "mit"]) == 2
    assert "README.md: it is there already" in capsys.readouterr().err
    assert card.read_bytes() == before
    assert main(["card", str(adapter), "--license", "mit", "--overwrite"]) == 0
    assert front_matter(card.read_text())["license"] == "mit"


@pytest.mark.parametrize(
    ("target", "typed"),
    [("a1111", "my-dog"), ("comfyui", "embedding:my-dog"), ("invokeai", "<my-dog>")],
)
def test_sidecars_spell_the_word_as_their_program_does(
    header: Header, target: Any, typed: str
) -> None:
    said = sidecar(header, target)
    assert said["activation text"] == f"{typed}, apply the brand style"
    assert said["sd version"] == "SD1"
    instructions = [f"turn the dog into {typed}", "apply the brand style"]
    assert said["example instructions"] == instructions


def test_sidecars_are_a_description_and_a_small_preview(header: Header) -> None:
    preview = Image.new("RGB", (900, 300), "red")
    plan = plan_sidecars(header, "dog", "a1111", preview)
    assert list(plan) == ["dog.json", "dog.png"]
    described, pictured = plan.values()
    assert isinstance(described, str)
    assert isinstance(pictured, bytes)
    assert json.loads(described)["trigger words"] == ["my-dog", "apply the brand style"]
    with Image.open(io.BytesIO(pictured)) as picture:
        assert picture.size == (512, 171)
    assert list(plan_sidecars(header, "dog", "a1111")) == ["dog.json"]


def test_push_uploads_adapter_exports_card_and_preview(
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    exports = adapter.parent / "exports"
    (exports / "kohya").mkdir(parents=True)
    (exports / "kohya" / "dog.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(exports)
    with upload_hub() as hub, caplog.at_level(logging.DEBUG):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        command = ["push", str(adapter), "--repo", "me/dog", "--exports", ".", "--private"]
        assert main(command) == 0
    assert sorted(hub.files) == [
        "README.md",
        "adapter.safetensors",
        "exports/kohya/dog.safetensors",
        "images/preview.png",
    ]
    assert hub.files["adapter.safetensors"] == adapter.read_bytes()
    assert "`exports/kohya/dog.safetensors`" in hub.files["README.md"].decode()
    assert hub.made[0]["visibility"] == "private"
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"}  # the front matter is checked without one
    printed = capsys.readouterr()
    assert f"4 files are at {hub.address}/me/dog" in printed.out
    assert TOKEN not in printed.out + printed.err + caplog.text
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "hf auth login"), (403, "may not write there"), (404, "no such owner"), (500, "500")],
)
def test_a_refusal_says_what_to_do_and_never_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    (tmp_path / "README.md").write_text("---\n---\n")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with upload_hub(refusal=status) as hub, pytest.raises(HubError, match=said) as raised:
        push(tmp_path, "me/dog", endpoint=hub.address)
    assert TOKEN not in str(raised.value)
    assert hub.files == {}


def test_no_network_and_a_bad_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(HubError, match="cannot be reached"):
            push(tmp_path, "me/dog", endpoint=nowhere)
    with pytest.raises(HubError, match="no repository's name"):
        push(tmp_path, "me/dog/three", endpoint=nowhere)


def test_missing_exports_are_told_before_anything_is_sent(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(adapter.parent / "nowhere")
    assert main(["push", str(adapter), "--repo", "me/dog", "--exports", nowhere]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
