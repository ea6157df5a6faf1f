"""Pipes, devices, sockets, folders and links to nothing, wherever a command names a file.

Each ends with exit code 2 and one message, at once, and nothing is written.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.pairs import ours, put

from customize.cli.main import main

KINDS = ("pipe", "device", "socket", "folder", "nothing", "circle")
NAMED = {"pipe": "a named pipe", "device": "a device", "socket": "a socket"}
"""What is told of those that can neither be read nor opened as folders."""

COMMANDS = (
    "check X.yaml",
    "train X.yaml",
    "fit-base X.yaml",
    "synthesize X.yaml",
    "edit X.png 'make it red'",
    "edit pairs/s/0.png 'make it red' --also X.png",
    "edit pairs/s/0.png 'make it red' -a X.safetensors",
    "edit pairs/s/0.png 'make it red' -a X.safetensors:0.5",
    "edit pairs/s/0.png 'make it red' --base ./X.safetensors",
    "edit-folder X.png 'make it red' -o out",
    "edit-folder X.jsonl 'make it red' -o out",
    "edit-folder X 'make it red' -o out",
    "edit-folder pairs 'make it red' -o out --mask X.png",
    "edit-folder pairs -o out --instructions X.txt",
    "merge X.safetensors X.safetensors -o out.safetensors",
    "export X.safetensors --to kohya -o out",
    "import X.safetensors --base embedded -o out.safetensors",
    "import X --base embedded -o out.safetensors",
    "inspect X.safetensors",
    "inspect X.png",
    "card X.safetensors -o out.md",
    "score X.jsonl -o out",
    "score X -o out",
    "score pairs -a X.safetensors -o out",
    "score pairs --clip ./X -o out",
    "choose X.jsonl -o out",
    "tune-guidance X.png 'make it red' -o out.png",
    "refine X.safetensors --choices X.jsonl",
    "synthesize backward X --instruction 'make it red' -o out",
    "synthesize widen X.jsonl -o out",
    "synthesize fit-writer X.jsonl --model ./none -o out",
)
FIELDS = (
    "base: X.safetensors",
    "base: ./X",
    "preview: {images: X.png}",
    "preview: {images: X.jsonl}",
    "preservation: {instructions: X.txt}",
    "preservation: {regularization_pairs: X.jsonl, regularization_share: 0.2}",
    "concepts: [{name: dog, pairs: X.jsonl}]",
    "concepts: [{name: dog, pairs: X.yaml}]",
)


@pytest.fixture(autouse=True)
def _at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in a folder with pairs, and end what waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    ours(tmp_path / "pairs")

    def waited(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(kind: str, name: str) -> None:
    """Put a thing of a kind at `name`."""
    match kind:
        case "pipe":
            os.mkfifo(name)
        case "device":
            os.symlink("/dev/zero", name)
        case "socket":
            socket.socket(socket.AF_UNIX).bind(name)
        case "folder":
            os.mkdir(name)
        case "nothing":
            os.symlink("nowhere", name)
        case _:
            os.symlink(name, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_what_is_no_file_is_told_at_once_by_every_command(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted({*re.findall(r"X[.\w]*", " ".join((*COMMANDS, *FIELDS)))})
    for name in names:
        make(kind, name)
    here = {*os.listdir(".")}
    recipes = list[str]()
    for number, field in enumerate(FIELDS):
        pairs = "" if field.startswith("concepts") else "concepts: [{name: dog, pairs: pairs}]\n"
        Path(f"{number}.yaml").write_text(f"{pairs}{field}\noutput: out\n")
        recipes.append(f"check {number}.yaml")
    for command in (*COMMANDS, *recipes):
        code = main(shlex.split(command))
        told = capsys.readouterr()
        assert code == 2, (command, told)
        assert "Traceback" not in told.err
        if (lies := NAMED.get(kind)) and "./X" not in command:
            assert lies in told.err + told.out, (command, told)
    new = {*os.listdir(".")} - here - {f"{number}.yaml" for number in range(len(FIELDS))}
    assert all(name.endswith("_pairs.png") for name in new), new  # the sheet that `check` draws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_rows_that_name_what_is_no_file_are_faults(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(kind, "X.png")
    rows = {
        "edits.jsonl": ({"image": "X.png"}, {"image": "pairs/s/0.png", "mask": "X.png"}),
        "finished.jsonl": (
            {"source": "pairs/s/0.png", "output": "X.png"},
            {"source": "pairs/s/0.png", "output": "pairs/t/0.png", "mask": "X.png"},
        ),
    }
    for table, listed in rows.items():
        text = "".join(json.dumps({"instruction": "make it red", **row}) + "\n" for row in listed)
        put(Path(table), text)
    for command in ("edit-folder edits.jsonl -o out", "score finished.jsonl -o out"):
        assert main(shlex.split(command)) == 2, command
        told = capsys.readouterr().err
        assert "2 faults" in told
        assert NAMED.get(kind, "X.png") in told
    assert not os.path.exists("out")
