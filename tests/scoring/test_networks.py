"""The networks behind scores: fetched from a hub, asked in batches, and said where they are not."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips as functional_lpips
import torchmetrics.image.lpip as modular_lpips
from builders.hubs import HubServer, Model, hub_server
from builders.scores import CLIP, NEAR, toy_dino
from PIL import Image

from customize.errors import ScoreError
from customize.scoring import open_models, score_edits
from customize.scoring.items import Item, Models
from customize.scoring.metrics import lpips
from customize.scoring.metrics.score import check_models
from customize.scoring.networks.store import Store

COUNT = 5


def no_models() -> Models:
    return Models(None, None, Store())


def noise(seed: int, side: int = 64) -> Image.Image:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


def edits(count: int = COUNT, side: int = 64) -> list[Item]:
    """Edits that share one source and one caption of it."""
    return [
        Item(noise(0, side), "x", noise(n, side), noise(n + 90, side), "a dog", f"a dog {n}")
        for n in range(1, count + 1)
    ]


def test_what_is_kept_counts_only_as_it_was_put_under_its_key(tmp_path: Path) -> None:
    vectors = {name: np.full(3, number, np.float32) for number, name in enumerate("abc")}
    Store(tmp_path / "cache.sqlite").put(vectors)
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as database, database:
        (a,), (b,) = (
            database.execute("SELECT value FROM vectors WHERE key = ?", key).fetchone()
            for key in "ab"
        )
        database.execute("UPDATE vectors SET value = ? WHERE key = 'a'", (b,))
        flipped = a[:-1] + bytes([a[-1] ^ 1])
        database.execute("UPDATE vectors SET value = ? WHERE key = 'b'", (flipped,))
    found = Store(tmp_path / "cache.sqlite").get([*"abc"])
    assert found.keys() == {"c"}
    assert np.array_equal(found["c"], vectors["c"])


def test_a_damaged_store_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ScoreError, match="cannot be used as a cache"):
        Store(tmp_path / "cache.sqlite")


@pytest.fixture
def _fresh_lpips() -> Iterator[None]:
    lpips.lpips_network.cache_clear()
    yield
    lpips.lpips_network.cache_clear()


@pytest.fixture
def _torchvision(_fresh_lpips: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for torchvision: its AlexNet, untrained; the rest of LPIPS is torchmetrics' own."""
    conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d

    def alexnet(weights: object) -> Any:
        assert weights == "trained"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            layers = [conv(3, 64, 11, 4, 2), relu(), pool(3, 2), conv(64, 192, 5, 1, 2), relu()]
            layers += [pool(3, 2), conv(192, 384, 3, 1, 1), relu(), conv(384, 256, 3, 1, 1), relu()]
            layers += [conv(256, 256, 3, 1, 1), relu()]
        return SimpleNamespace(features=torch.nn.Sequential(*layers))

    models = SimpleNamespace(alexnet=alexnet, AlexNet_Weights=SimpleNamespace(DEFAULT="trained"))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    for module in (functional_lpips, modular_lpips):
        monkeypatch.setattr(module, "_TORCHVISION_AVAILABLE", True)


@pytest.mark.usefixtures("_torchvision")
def test_lpips_is_torchmetrics_own() -> None:
    items = edits()
    values = score_edits(items, no_models(), ["lpips"]).values("lpips")
    assert len(values) == COUNT
    for item, value in zip(items, values, strict=True):
        pair = (
            torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] for p in (item.output, item.target)
        )
        output, target = (one / 127.5 - 1 for one in pair)  # -1 to 1, as the network was trained
        expected = functional_lpips.learned_perceptual_image_patch_similarity(
            output, target, net_type="alex"
        )
        assert value == pytest.approx(float(expected), abs=NEAR)
        assert value > 0.01
    again = score_edits([*items, *edits(2, 48), items[0]], no_models(), ["lpips"], at_once=2)
    assert again.values("lpips")[:COUNT] == pytest.approx(values, abs=NEAR)
    assert again.values("lpips")[-1] == pytest.approx(values[0], abs=NEAR)
    copy = Item(items[0].source, "x", items[0].output, items[0].output)
    assert score_edits([copy], no_models(), ["lpips"]).mean("lpips") == 0


@pytest.mark.usefixtures("_torchvision")
def test_lpips_takes_pairs_of_one_size_together_and_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, measure = list[int](), lpips.lpips

    def counted(network: Any, outputs: Any, targets: Any) -> list[float]:
        together.append(len(outputs))
        return measure(network, outputs, targets)

    monkeypatch.setattr(lpips, "lpips", counted)
    items, models = [*edits(3), *edits(2, 48), *edits(1, lpips.LPIPS_SIDE - 1)], no_models()
    scores = score_edits([*items, items[0]], models, ["lpips"], at_once=2)
    assert together == [2, 2, 1]
    assert len(scores.values("lpips")) == 6
    assert any("for 1 of 7 edits" in note for note in scores.notes)
    assert score_edits(items, models, ["lpips"]).values("lpips") == scores.values("lpips")[:5]
    assert together == [2, 2, 1]


@pytest.mark.usefixtures("_torchvision")
def test_pictures_too_small_for_lpips_have_none() -> None:
    least = lpips.LPIPS_SIDE
    assert score_edits(edits(1, least), no_models(), ["lpips"]).values("lpips")
    [note] = [n for n in score_edits(edits(1, least - 1), no_models()).notes if "lpips" in n]
    assert note == f"lpips is left out: pictures below {least} pixels a side have none"


@pytest.mark.usefixtures("_fresh_lpips")
def test_without_torchvision_lpips_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modular_lpips, "_TORCHVISION_AVAILABLE", False)
    scores = score_edits(edits(2), no_models())
    assert "lpips" not in scores.metrics()
    assert scores.metrics() == ["psnr", "ssim"]
    [note] = [note for note in scores.notes if note.startswith("lpips")]
    assert note == (
        "lpips is left out: it is computed with torchvision, which is not installed; install the "
        "torchvision that belongs to your torch"
    )
    with pytest.raises(ScoreError, match="torchvision, which is not installed"):
        score_edits(edits(2), no_models(), ["lpips"])
    with pytest.raises(ScoreError, match=r"cannot be had.*not installed.*or leave it out"):
        check_models(["psnr", "lpips"], dino=False)
    with pytest.raises(ScoreError, match="no DINO was named"):
        check_models(["dino_concept"], dino=False)
    check_models(["psnr", "dino_concept"], dino=True)


@pytest.mark.usefixtures("_torchvision")
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "does not work here.*nms"),
        (OSError("no route"), "its AlexNet cannot be fetched .no route.; connect once"),
    ],
)
def test_a_torchvision_that_does_not_work(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(weights: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["torchvision"].models, "alexnet", broken)
    with pytest.raises(ScoreError, match=expected):
        check_models(["lpips"], dino=False)


class Counting:
    """A network that notes how many things it was asked about together."""

    fingerprint, name = "counting", "counting"

    def __init__(self) -> None:
        self.asked: dict[str, list[int]] = {"pictures": [], "texts": []}

    def image_BD(self, pictures: list[Image.Image]) -> torch.Tensor:  # noqa: N802 - axes
        self.asked["pictures"].append(len(pictures))
        return torch.eye(8)[: len(pictures)]

    def text_BD(self, texts: list[str]) -> torch.Tensor:  # noqa: N802 - axes
        self.asked["texts"].append(len(texts))
        return torch.eye(8)[: len(texts)]


def test_networks_see_each_picture_and_text_once_several_together() -> None:
    network: Any = Counting()
    models = Models(network, None, Store())
    score_edits(edits(), models, ["clip_image", "clip_direction", "clip_text"], at_once=4)
    assert network.asked == {"pictures": [4, 2], "texts": [4, 2]}, "one source, one caption of it"
    score_edits(edits(COUNT + 1), models, ["clip_image"], at_once=4)
    assert network.asked["pictures"] == [4, 2, 1], "only the picture that is new"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve models under the published names, to a fresh cache."""
    from huggingface_hub import constants

    dino = toy_dino(tmp_path / "dino", "dinov2")
    (dino / "pytorch_model.bin").write_bytes(b"a pickle")
    served = {
        "openai__clip-vit-large-patch14": Model({"main": CLIP}),
        "facebook__dinov2-base": Model({"main": dino}),
    }
    with hub_server(**served) as hub:
        place = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def test_models_come_from_a_hub_once_and_are_those_of_their_folders(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "openai/clip-vit-large-patch14", "facebook/dinov2-base"
    fetched = open_models(*names, device="cpu")
    assert not [path for path in hub.files_sent() if path.endswith(".bin")], "no pickle"
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = open_models(*names, device="cpu")
    assert len(hub.requests) == asked
    local = open_models(str(CLIP), str(tmp_path / "dino"), device="cpu")
    item = Item(noise(1), "paint the dog red", noise(2), references=(noise(3),))
    rows = [
        score_edits([item], models, ["clip_image", "clip_instruction", "dino_concept"]).rows[0]
        for models in (fetched, again, local)
    ]
    assert rows[0].keys() == {"clip_image", "clip_instruction", "dino_concept"}
    for row in rows[1:]:
        assert dict(row) == pytest.approx(dict(rows[0]), abs=1e-6)
