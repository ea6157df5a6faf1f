"""A base comes from a hub, here one on loopback: whole, once, by revision, or with one message."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders.bases import toy_base
from builders.hubs import HubServer, Model, hub_server
from PIL import Image
from safetensors.torch import load_file, save_file

from customize import families
from customize.cli.main import main
from customize.errors import BaseModelError
from customize.families.base import resolve_base

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_base(tmp_path_factory.mktemp("good"))


@pytest.fixture
def other(good: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(good, tmp_path / "other"))


@pytest.fixture
def hub(good: Path, other: Path) -> Iterator[HubServer]:
    with hub_server(
        some__editor=Model({"main": good, "v2": other}),
        some__gated=Model({"main": good}, token="hf_right", gated=True),
        some__private=Model({"main": good}, token="hf_right"),
    ) as served:
        yield served


@pytest.fixture(autouse=True)
def _online(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the hub library, which reads its environment once, at the server and a fresh cache."""
    from huggingface_hub import constants

    place = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_base_comes_whole_and_once(
    good: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = resolve_base("some/editor")
    assert base.fingerprint == resolve_base(str(good)).fingerprint
    families.open_pipeline(base)
    assert hub.sent[UNET] == (good / UNET).stat().st_size
    sent = dict(hub.sent)
    assert resolve_base("some/editor") == base
    assert hub.sent == sent
    _offline(monkeypatch)
    count = len(hub.requests)
    assert resolve_base("some/editor") == base
    assert len(hub.requests) == count


def test_a_revision_is_its_own(other: Path, hub: HubServer) -> None:
    weights = load_file(other / UNET)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / UNET)
    first, second = resolve_base("some/editor"), resolve_base("some/editor", "v2")
    assert first.fingerprint != second.fingerprint
    assert second.fingerprint == resolve_base(str(other)).fingerprint
    commit = hub.models["some/editor"].commit("v2")
    assert resolve_base("some/editor", commit) == second


def test_a_connection_that_breaks_goes_on_where_it_was(
    good: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut[UNET] = 5000
    resolve_base("some/editor")
    assert hub.ranges == [f"{UNET} bytes=5000-"]
    assert hub.sent[UNET] == (good / UNET).stat().st_size


def test_a_download_that_failed_goes_on_with_the_files_it_lacks(hub: HubServer) -> None:
    hub.failing[UNET] = 403
    with pytest.raises(BaseModelError, match=r"failed \(HfHubHTTPError: .* that came are kept"):
        resolve_base("some/editor")
    hub.failing.clear()
    sent = dict(hub.sent)
    resolve_base("some/editor")
    assert UNET not in sent
    assert all(hub.sent[path] == count for path, count in sent.items() if path.endswith(".json"))


def test_half_precision_is_fetched_only_where_there_is_nothing_else(
    other: Path, hub: HubServer
) -> None:
    vae = "vae/diffusion_pytorch_model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(other / vae).items()}
    (other / vae).unlink()
    save_file(halved, (other / vae).with_suffix(".fp16.safetensors"))
    unet = {name: tensor.half() for name, tensor in load_file(other / UNET).items()}
    save_file(unet, (other / UNET).with_suffix(".fp16.safetensors"))
    (other / "safety_checker").mkdir()
    save_file({"x": torch.zeros(1)}, other / "safety_checker/model.safetensors")
    save_file({"x": torch.zeros(1)}, other / "v1-5-pruned.safetensors")
    base = resolve_base("some/editor", "v2")
    weights = {path for path in hub.sent if path.endswith(".safetensors")}
    assert weights == {
        UNET,
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors",
    }
    families.open_encoder(base)
    families.open_family(base)


def test_a_wrong_kind_is_refused_before_its_weights_come(other: Path, hub: HubServer) -> None:
    config = other / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 9}))
    with pytest.raises(BaseModelError, match="an inpainting model"):
        resolve_base("some/editor", "v2")
    assert hub.sent
    assert not any(path.endswith(".safetensors") for path in hub.sent)


def test_a_token_opens_what_it_may(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert resolve_base("some/gated").fingerprint == resolve_base("some/private").fingerprint


@pytest.mark.parametrize(
    ("name", "revision", "token", "expected"),
    [
        ("some/gated", None, None, r"asks for consent.*accept its terms at .*/some/gated and run"),
        ("some/gated", None, "hf_wrong", "asks for consent"),
        ("some/private", None, None, "no such public model, nor one your token may read"),
        ("some/nothing", None, None, "no such public model"),
        ("some/editor", "v9", None, "no revision 'v9' of it.*correct base.revision"),
        ("some/editor", None, "hf_broken", "refuses your token.*unset HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses(
    name: str,
    revision: str | None,
    token: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BaseModelError, match=expected) as caught:
        resolve_base(name, revision)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_index_no_cache_no_network_no_disk(
    other: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other / "model_index.json").unlink()
    with pytest.raises(BaseModelError, match=r"model_index\.json is missing"):
        resolve_base("some/editor", "v2")

    with monkeypatch.context() as full:
        no_room = OSError(errno.ENOSPC, "No space left on device")
        full.setattr("huggingface_hub.file_download.http_get", _raising(no_room))
        with pytest.raises(BaseModelError, match=r"has run full, .*hub is on it.*HF_HOME"):
            resolve_base("some/editor")

    _offline(monkeypatch)
    with pytest.raises(BaseModelError, match=r"hub cannot be reached.*unset HF_HUB_OFFLINE"):
        resolve_base("some/gated")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BaseModelError, match="hub cannot be reached"):
        resolve_base("some/gated")


def _raising(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_the_command_line_takes_hub_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, answer = tmp_path / "in.png", tmp_path / "out.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    command = ["edit", str(picture), "make it red", "-o", str(answer), "--steps", "1", "--base"]
    assert main([*command, "some/gated"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("customize: base 'some/gated': the hub asks for consent")
    assert not answer.exists()
    assert main([*command, "some/editor"]) == 0
    assert answer.exists()
