"""Pairs as they come from other people and systems: accents, line ends, doubled keys, pipes."""

from __future__ import annotations

import json
import os
import shutil
import time
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from builders.pairs import flymyai, numbered, ours, put, put_rows, scene, start_end

from customize.errors import PairsError
from customize.pairs.find import find_pairs

ROW = {"source": "s/0.png", "instruction": "make it red", "edited": "t/0.png"}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghij")
)
TARGETS = "[[datasets]]\nimage_directory = {targets}\ncontrol_directory = {sources}\n"


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def decompose(folder: Path) -> None:
    """Rename all that is in `folder` to what macOS would have unpacked."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rename(path.with_name(nfd(path.name)))


def faults(folder: Path) -> str:
    start = time.process_time()
    with pytest.raises(PairsError) as caught:
        find_pairs(folder)
    assert time.process_time() - start < 10
    return str(caught.value)


# Accents


def table(folder: Path) -> Path:
    ours(folder)
    os.rename(folder / "s", folder / "Hündin")
    os.rename(folder / "Hündin" / "0.png", folder / "Hündin" / "süß.png")
    put_rows(folder / "pairs.jsonl", {**ROW, "source": "Hündin/süß.png"})
    return folder


def half_composed_stems(folder: Path) -> Path:
    flymyai(folder, "hündin 0", "hündin 1")
    decompose(folder / "control")
    return folder


def config(folder: Path) -> Path:
    flymyai(folder / "Bilder für alle", "é")
    text = TARGETS.format(targets='"Bilder für alle/images"', sources='"Bilder für alle/control"')
    return put(folder / "set.toml", text)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "table": table,
    "stems": lambda folder: flymyai(folder, "hündin 0", "hündin 1"),
    "half of them": half_composed_stems,
    "start and end": lambda folder: start_end(folder, "hündin", "rüde"),
    "numbered": lambda folder: numbered(folder, "0ü"),
    "config": config,
}


@pytest.mark.parametrize("layout", MAKERS)
def test_names_match_however_their_accents_are_stored(tmp_path: Path, layout: str) -> None:
    made = MAKERS[layout](tmp_path / "pairs")
    count = len(find_pairs(made).pairs) if layout != "half of them" else 2
    contents = {path: path.read_text() for path in tmp_path.rglob("*.jsonl")}
    decompose(tmp_path / "pairs")
    if layout == "half of them":  # the other half, so that partners differ again
        for path in (tmp_path / "pairs" / "images").iterdir():
            path.rename(path.with_name(nfc(path.name)))
    found = find_pairs(tmp_path / nfc(str(made.relative_to(tmp_path)))).pairs
    assert len(found) == count > 0
    assert all(pair.source.is_file() and pair.target.is_file() for pair in found)
    assert contents == {path: path.read_text() for path in tmp_path.rglob("*.jsonl")}


def test_a_set_of_pairs_is_found_however_its_accents_are_stored(tmp_path: Path) -> None:
    ours(tmp_path / nfd("Hündin"))
    assert len(find_pairs(tmp_path / nfc("Hündin")).pairs) == 3


def test_two_spellings_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    flymyai(tmp_path, nfc("é"))
    shutil.copy(tmp_path / "control" / f"{nfc('é')}.png", tmp_path / "control" / f"{nfd('é')}.png")
    assert "their accents stored in two ways" in faults(tmp_path)


# Rows


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_json_lines_end_at_newlines_only(tmp_path: Path, odd: str) -> None:
    ours(tmp_path)
    rows = [json.dumps({**ROW, "instruction": f"make{odd}it red"}, ensure_ascii=False)] * 2
    if ord(odd) < 32:
        rows = [json.dumps({**ROW, "instruction": f"make{odd}it red"})] * 2
    put(tmp_path / "pairs.jsonl", "\r\n".join(rows))
    assert [pair.instruction for pair in find_pairs(tmp_path).pairs] == ["make it red"] * 2


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("pairs.jsonl", '{"source": "a", "source": "b"}', "the key 'source' given twice"),
        ("metadata.json", '[{"image": "a", "image": "b"}]', "the key 'image' given twice"),
        ("metadata.csv", "image,prompt,image\na,b,c\n", "the column 'image' given twice"),
        ("pairs.jsonl", json.dumps({**ROW, "weight": "X"}).replace('"X"', "9" * 400), "400 digits"),
        ("pairs.jsonl", json.dumps({**ROW, "weight": "9" * 400}), "weight '999"),
        ("pairs.jsonl", json.dumps({**ROW, "weight": 1e308}).replace("1e+308", "1e309"), "1e309"),
        ("pairs.jsonl", json.dumps({**ROW, "instruction": "\ud800 it"}), "half of a character"),
        ("pairs.jsonl", json.dumps({**ROW, "instruction": "red " * 5000}), "of 5000 at most"),
        ("pairs.jsonl", json.dumps({**ROW, "edited_caption": "red " * 5000}), "of 5000 at most"),
        ("pairs.jsonl", r'{"source": "C:\Users\me\1.png"}', "forward slashes"),
        ("pairs.jsonl", r'{"source": "D:\new\1.png", "edited": "a", "instruction": "a"}', "slash"),
        ("pairs.jsonl", "[" * 100_000, "nested more than 32 deep"),
        ("pairs.jsonl", '{"a":' * 100_000, "nested more than 32 deep"),
        ("set.toml", TARGETS.format(targets=r'"C:\Users\me"', sources='"a"'), "forward slashes"),
        ("set.toml", TARGETS.format(targets=r'"D:\new\table"', sources='"a"'), "forward slashes"),
        ("set.toml", "datasets = [" + "[" * 50_000, "not TOML"),
        ("set.toml", "[[datasets]]\nnum_repeats = inf\n" + 'image_directory = "t"\n'
         'control_directory = "s"', "num_repeats is inf"),
    ],
)  # fmt: skip
def test_tables_that_no_program_can_use_are_one_message(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    ours(tmp_path)
    (tmp_path / "pairs.jsonl").unlink()
    put(tmp_path / name, text)
    assert found in faults(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LAUGHS + "config: {process: [{datasets: *j}]}", "more than 20000 values"),
        ("config: {process: [{datasets: [{folder_path: a, folder_path: b}]}]}", "given twice"),
        (r'config: {process: [{datasets: [{folder_path: "D:\new\table"}]}]}', "forward slashes"),
        (r'config: {process: [{datasets: [{folder_path: "C:\Users\me"}]}]}', "forward slashes"),
        ("config: &a {process: [*a]}", "an alias to what it stands in"),
    ],
)  # fmt: skip
def test_configs_that_no_program_can_use_are_one_message(
    tmp_path: Path, text: str, found: str
) -> None:
    assert found in faults(put(tmp_path / "set.yaml", text))


def test_aliases_of_a_usual_config_are_followed(tmp_path: Path) -> None:
    flymyai(tmp_path, "1")
    text = "shared: &all {caption_ext: txt}\nconfig:\n  process:\n    - datasets:\n"
    text += "        - {<<: *all, folder_path: images, control_path: control}\n"
    assert len(find_pairs(put(tmp_path / "set.yaml", text)).pairs) == 1


def test_prompts_are_bounded_too(tmp_path: Path) -> None:
    numbered(tmp_path, "0")
    prompt = next(tmp_path.rglob("prompt.json"))
    put(prompt, json.dumps({"edit": "make it red", "output": "red " * 5000}))
    assert "of 5000 at most" in faults(tmp_path)
    put(prompt, '{"edit": "a", "edit": "b"}')
    assert "given twice" in faults(tmp_path)


# Files that are none


def test_pipes_and_devices_are_never_waited_for(tmp_path: Path) -> None:
    ours(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    put_rows(tmp_path / "pairs.jsonl", {**ROW, "source": "pipe.png"})
    assert "pipe.png" in faults(tmp_path)
    (tmp_path / "pairs.jsonl").unlink()
    os.mkfifo(tmp_path / "pairs.jsonl")
    assert "holds pairs" not in faults(tmp_path)
    flymyai(tmp_path / "stems", "1")
    (tmp_path / "stems" / "images" / "1.txt").unlink()
    os.mkfifo(tmp_path / "stems" / "images" / "1.txt")
    assert "1.png" in faults(tmp_path / "stems")
    put(tmp_path / "set.toml", TARGETS.format(targets='"pipe.png"', sources='"/dev/zero"'))
    told = faults(tmp_path / "set.toml")
    assert "a named pipe" in told
    assert "a device" in told
    os.mkfifo(tmp_path / "pipe.yaml")
    faults(tmp_path / "pipe.yaml")
    assert scene().size == (48, 40)
