"""Names in a command line are found however accents are stored; what is printed is only shown."""

from __future__ import annotations

import io
import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import TextIO, cast

import pytest
import torch
from builders.bases import toy_base
from builders.pairs import ours, put

from customize.adapters.file import save_adapter
from customize.adapters.header import Header, Taught
from customize.cli.main import main
from customize.cli.terminal import Shown, spelled_as_stored
from customize.errors import AdapterFileError
from customize.families.base import resolve_base

TYPED, STORED = (unicodedata.normalize(form, "hündin é") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_words_name_files_as_the_disk_spells_them() -> None:
    put(Path(f"{STORED}.png"))
    put(Path(f"{STORED}/a.png"))
    words = [
        f"{TYPED}.png",
        f"{TYPED}.png:0.5",
        f"--adapter={TYPED}.png+{TYPED}/a.png:2",
        f"{TYPED}/new.png",
        f"<dog>={TYPED}.png",
    ]
    assert spelled_as_stored(words) == [word.replace(TYPED, STORED) for word in words]
    others = ["make it grün", f"s3://{TYPED}/a.png", f"{STORED}.png", "x" * 5000 + "ü", "--steps"]
    assert spelled_as_stored(others) == others


def test_commands_take_names_as_people_type_them(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(toy_base(Path("made")), f"{STORED} base")
    ours(Path(STORED))
    put(Path(f"{STORED}.yaml"), f"base: ./{TYPED} base\nconcepts: [{{name: dog, pairs: {TYPED}}}]")
    base = ["--base", f"{TYPED} base", "--steps", "1", "--device", "cpu"]
    for command in (
        ["check", f"{TYPED}.yaml"],
        ["edit", f"{TYPED}/s/0.png", "make it red", *base, "-o", f"{TYPED}/new.png"],
        ["edit-folder", f"{TYPED}/s", "make it red", *base, "-o", "a"],
        ["edit-folder", f"{TYPED}/s/*.png", "red", *base, "--mask", f"{TYPED}/t/0.png", "-o", "b"],
        ["inspect", f"{TYPED}/new.png"],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
    assert not os.path.exists(TYPED)
    assert len(list(Path("b").glob("*.png"))) == 3
    assert main(["edit", f"{STORED}/s/0.png", "red", *base, "-o", f"{TYPED}/new.png"]) == 2


def test_a_pattern_finds_names_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    for number, form in enumerate((TYPED, STORED)):
        put(Path(f"shots/{form} {number}.png"))
    base = ["--base", str(toy_base(Path("base"))), "--steps", "1", "--device", "cpu"]
    assert main(["edit-folder", f"shots/{TYPED}*.png", "make it red", *base, "-o", "out"]) == 0
    assert len(list(Path("out").glob("*.png"))) == 2


@pytest.mark.parametrize("odd", ["\x1b[2J", "\x1b]0;x\x07", "\u202e", "a\rb", "a\nb"])
def test_no_name_moves_the_terminal(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(Path(f"{odd}.safetensors"), "no adapter")
    put(Path(f"{odd}.png"), "no picture")
    put(Path(f"{odd}.yaml"), "x: 1")
    for command in (
        ["inspect", f"{odd}.safetensors"],
        ["merge", f"{odd}.safetensors", f"{odd}.safetensors", "-o", "out.safetensors"],
        ["edit", f"{odd}.png", "make it red"],
        ["check", f"{odd}.yaml"],
    ):
        assert main(command) == 2
        told = capsys.readouterr().err
        assert odd not in told, command
        assert told.count("customize: ") == 1


def test_what_an_edit_prints_of_an_adapters_name_is_only_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = resolve_base(str(toy_base(Path("base"))))
    put(Path("a.png"))
    header = Header(
        family=base.family,
        base_name="base",
        base_fingerprint=base.fingerprint,
        method="low_rank",
        concepts=(Taught("my_dog", "<my-dog>", vectors=2),),
    )
    width = json.loads((base.folder / "text_encoder" / "config.json").read_text())["hidden_size"]
    rows = {"words.text_encoder.<my-dog>": torch.ones(2, width)}
    save_adapter(Path("\x1b[31mred.safetensors"), header, rows)
    options = ["-a", "\x1b[31mred.safetensors", "--base", "base", "--steps", "1", "--device", "cpu"]
    assert main(["edit", "a.png", "make it <my-dog>", *options]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\\x1b[31mred" in told


def test_a_stream_shows_what_a_terminal_would_obey() -> None:
    out = io.StringIO()
    print("a\x1b[31mb\tc\u202e", file=cast("TextIO", Shown(out)))
    assert out.getvalue() == "a\\x1b[31mb\tc\\u202e\n"


def test_faults_of_several_files_are_a_line_each() -> None:
    error = AdapterFileError("a: one", "b: two")
    assert str(error) == "a: one\nb: two"
    assert list(error.sentences()) == ["a: one", "b: two"]
