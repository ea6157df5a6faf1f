"""Caching: what is encoded once is read back bit for bit, and never for anything else."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.bases import toy_example, toy_resolved
from builders.memory import Fresh
from PIL import Image

from customize.families.words import Word
from customize.pairs.buckets import Crop
from customize.shapes import Pair
from customize.training import cache
from customize.training.cache import Setting, View, encode_all, pair_digest

INSTRUCTIONS = ["", "make it red", "make it blue"]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(toy_resolved(tmp_path_factory.mktemp("base")))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    example = toy_example(seed=1)
    for name, pixels_HWC in (("source", example.source_HWC), ("target", example.target_HWC)):
        Image.fromarray(pixels_HWC).save(tmp_path / f"{name}.png")
    return Pair(tmp_path / "source.png", "make the dog red", tmp_path / "target.png")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note every opening of the encoders."""
    calls: list[object] = []
    real = cache.open_encoder

    def spy(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return real(*arguments, **options)  # pyright: ignore

    monkeypatch.setattr(cache, "open_encoder", spy)
    return calls


def test_second_time_reads_the_same_without_opening_the_encoders(
    tmp_path: Path, setting: Setting, pair: Pair, opened: list[object]
) -> None:
    views = [View(pair, (32, 32)), View(pair, (32, 32), flip=True)]
    first, texts = encode_all(tmp_path / "cache", setting, views, INSTRUCTIONS)
    again, texts_again = encode_all(tmp_path / "cache", setting, views, INSTRUCTIONS)
    assert len(opened) == 1
    assert len(first) == len(again) == 2
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.edited.target_mean_Chw, other.edited.target_mean_Chw)
        assert torch.equal(one.edited.conditions["source"], other.edited.conditions["source"])
    assert texts["text"].shape[0] == 3
    assert torch.equal(texts["text"], texts_again["text"])
    assert not torch.equal(first[0].edited.target_mean_Chw, first[1].edited.target_mean_Chw)


def test_unedited_is_the_scaled_source(tmp_path: Path, setting: Setting, pair: Pair) -> None:
    (cached,), _ = encode_all(tmp_path, setting, [View(pair, (32, 32))], INSTRUCTIONS)
    scaled = cached.edited.conditions["source"] * 0.7  # the toy VAE's scaling factor
    torch.testing.assert_close(cached.unedited.target_mean_Chw, scaled)


CHANGES = {
    "size": lambda view: replace(view, size=(64, 32)),
    "flip": lambda view: replace(view, flip=True),
    "crop": lambda view: replace(view, crop=Crop(0.1, 0.2, 1.2)),
    "alpha color": lambda view: replace(view, alpha_color="#000000"),
    "colours": lambda view: replace(view, other_colors=7),
    "instruction": lambda view: replace(view, pair=replace(view.pair, instruction="paint it")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_view_is_encoded_anew(
    tmp_path: Path, setting: Setting, pair: Pair, opened: list[object], change: str
) -> None:
    view = View(pair, (32, 32))
    encode_all(tmp_path / "cache", setting, [view], INSTRUCTIONS)
    encode_all(tmp_path / "cache", setting, [CHANGES[change](view)], INSTRUCTIONS)
    assert len(opened) == 2


def test_changed_bytes_base_words_and_code_are_encoded_anew(
    tmp_path: Path,
    setting: Setting,
    pair: Pair,
    opened: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views, folder = [View(pair, (32, 32))], tmp_path / "cache"
    encode_all(folder, setting, views, INSTRUCTIONS)
    before = pair_digest(pair)
    Image.fromarray(toy_example(seed=9).target_HWC).save(pair.target)
    assert pair_digest(pair) != before
    encode_all(folder, setting, views, INSTRUCTIONS)
    other_base = replace(setting.base, fingerprint="another")
    encode_all(folder, replace(setting, base=other_base), views, INSTRUCTIONS)
    taught = replace(setting, words=(Word("<my-dog>", "dog"),), as_tokens=True)
    (cached,), texts = encode_all(folder, taught, views, INSTRUCTIONS)
    assert "token_ids" in cached.edited.conditions
    assert texts.keys() == {"token_ids"}
    monkeypatch.setattr(cache, "CODE_VERSION", cache.CODE_VERSION + 1)
    encode_all(folder, setting, views, INSTRUCTIONS)
    assert len(opened) == 5


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty", "garbage"])
def test_a_damaged_file_is_encoded_anew(
    tmp_path: Path, setting: Setting, pair: Pair, opened: list[object], damage: str
) -> None:
    views = [View(pair, (32, 32))]
    (right,), _ = encode_all(tmp_path / "cache", setting, views, INSTRUCTIONS)
    files = sorted((tmp_path / "cache").glob("*.safetensors"))
    assert len(files) == 2
    for path in files:
        content = bytearray(path.read_bytes())
        if damage == "flipped bit":
            content[-3] ^= 16
        path.write_bytes(
            {"cut": content[:-9], "empty": b"", "garbage": b"x" * 99}.get(damage, content)
        )
    (mended,), _ = encode_all(tmp_path / "cache", setting, views, INSTRUCTIONS)
    assert len(opened) == 2
    assert torch.equal(mended.edited.target_mean_Chw, right.edited.target_mean_Chw)
    encode_all(tmp_path / "cache", setting, views, INSTRUCTIONS)
    assert len(opened) == 2
    assert not list((tmp_path / "cache").glob(".*"))


def test_whole_files_under_other_names_are_not_taken(
    tmp_path: Path, setting: Setting, pair: Pair, opened: list[object]
) -> None:
    folder = tmp_path / "cache"
    views = [View(pair, (32, 32)), View(pair, (32, 32), flip=True)]
    right, _ = encode_all(folder, setting, views, INSTRUCTIONS)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    contents = [(folder / name).read_bytes() for name in names]
    for name, content in zip(names, [*contents[1:], contents[0]], strict=True):
        (folder / name).write_bytes(content)
    again, _ = encode_all(folder, setting, views, INSTRUCTIONS)
    assert len(opened) == 2
    for one, other in zip(right, again, strict=True):
        assert torch.equal(one.edited.target_mean_Chw, other.edited.target_mean_Chw)


def test_the_encoders_leave_memory(tmp_path: Path, setting: Setting, pair: Pair) -> None:
    from diffusers import AutoencoderKL

    fresh = Fresh(AutoencoderKL)
    encode_all(tmp_path, setting, [View(pair, (32, 32))], INSTRUCTIONS)
    gc.collect()
    assert fresh.counts() == (0,)
