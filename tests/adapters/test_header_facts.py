"""Headers tell nothing of the machine, and what strangers' headers name is followed in bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.bases import toy_base, toy_header
from builders.runs import toy_pairs

from customize.adapters.at_base import base_for
from customize.adapters.file import read_adapter, save_adapter
from customize.adapters.header import dump_header
from customize.adapters.header_facts import followed, shareable
from customize.cli.main import main
from customize.errors import AdapterFileError
from customize.families.base import resolve_base
from customize.families.known_places import place_of

WORDS = {"words.text_encoder.<my-dog>": torch.ones(1, 4)}


def test_no_absolute_path_gets_into_a_header() -> None:
    recipe = {
        "base": {"name": "/home/me/base"},
        "concepts": [{"name": "a", "pairs": "/home/me/pairs/dog"}],
        "preview": {"images": "~/me/unseen"},
        "preservation": {"instructions": "C:\\Users\\me\\list.txt"},
        "output": "/home/me/runs/a",
        "pairs": {"alpha_color": "#ffffff"},
    }
    text = dump_header(toy_header(base_name="/home/me/base", recipe=recipe))
    assert not any(private in text for private in ("/home", "me/", "Users", "~"))
    told = json.loads(text)
    assert told["base_name"] == "./base"
    assert told["recipe"]["concepts"][0] == {"name": "a", "pairs": "./dog"}
    assert told["recipe"]["preservation"]["instructions"] == "./list.txt"
    kept = {"preservation": {"instructions": ["/imagine a dog"]}}
    assert json.loads(dump_header(toy_header(recipe=kept)))["recipe"] == kept


def test_paths_in_the_working_folder_stay_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shareable(str(tmp_path / "data" / "dog")) == "./data/dog"
    assert followed(shareable(str(tmp_path / "data" / "dog"))) == Path("data/dog")
    for place in ("data/dog", "./a/../b", "embedded", "owner/name"):
        assert shareable(place) == place
        assert followed(place) is not None


@pytest.mark.parametrize(
    "place",
    ["/etc", "~/x", "~root", "..", "../x", "a/../../x", "C:\\x", "\\\\host\\x", "a\0b", "C:/x"],
)
def test_places_elsewhere_are_not_followed(place: str) -> None:
    assert followed(place) is None


def test_a_base_is_found_again_by_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUSTOMIZE_CACHE", str(tmp_path / "cache"))
    base = resolve_base(str(toy_base(tmp_path / "private" / "base")))
    header = toy_header(base_name=base.name, base_fingerprint=base.fingerprint)
    path = save_adapter(tmp_path / "a.safetensors", header, WORDS)
    assert str(tmp_path).encode() not in path.read_bytes()
    assert base_for(read_adapter(path).header) == str(tmp_path / "private" / "base")
    (tmp_path / "private").rename(tmp_path / "moved")
    assert place_of(base.fingerprint) is None
    with pytest.raises(AdapterFileError, match=r"a base called './base'.*name it with --base"):
        base_for(read_adapter(path).header)
    assert main(["edit", "x.png", "hi", "-a", str(path)]) == 2
    capsys.readouterr()
    for broken in ("{", "[1]", '{"a": 1}'):
        (tmp_path / "cache" / "known_bases.json").write_text(broken)
        assert place_of("a") is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "~/x", "./nowhere", "a b; c"])
def test_a_strangers_header_opens_no_place_of_this_machine(name: str) -> None:
    with pytest.raises(AdapterFileError, match="name it with --base"):
        base_for(toy_header(base_name=name, base_fingerprint="f" * 64))


@pytest.mark.slow
def test_a_run_by_absolute_paths_leaves_none_in_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private = tmp_path / "private"
    toy_pairs(private / "pairs")
    toy_base(private / "base")
    recipe = private / "recipe.yaml"
    recipe.write_text(
        f"base: {private / 'base'}\noutput: {private / 'run'}\n"
        "concepts: [{name: my_dog, word: <my-dog>, initializer: dog, pairs: "
        f"{private / 'pairs'}}}]\n"
        f"preview: {{every: 1, images: {private / 'pairs'}, steps: 1, count: 1}}\n"
        "train: {steps: 1, batch: 1, optimizer: adamw}\nsave: {log: []}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", str(recipe)]) == 0
    capsys.readouterr()
    made = private / "run" / "adapter.safetensors"
    for path in (made, private / "run" / "best.safetensors"):
        if path.exists():
            assert str(tmp_path).encode() not in path.read_bytes()
    assert main(["export", str(made), "--to", "all", "-o", "exports", "--no-verify"]) == 0
    for path in Path("exports").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
