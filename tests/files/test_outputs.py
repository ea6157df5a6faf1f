"""Where an output may go: never where something is read from, or where everything lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from customize.errors import OutputError
from customize.files.outputs import Used, check_place


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a working folder, a home and data beside one another."""
    for name in ("work/runs", "home/me/pictures", "data/dogs", "model/unet"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/dogs/1.png").touch()
    (tmp_path / "adapter.safetensors").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home/me"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def used(here: Path) -> tuple[Used, ...]:
    """List what a command reads."""
    return (
        Used("the pairs of dog", here / "data/dogs"),
        Used("the base", here / "model"),
        Used("a picture of the pairs", here / "data/cats/1.png"),
        Used("the adapter", here / "adapter.safetensors", shared=True),
    )


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("/", "the whole disk"),
        ("../home/me", "a home folder"),
        ("/home/somebody", "a home folder"),
        ("../home", "holds the home folders"),
        (".", "the working folder"),
        ("../work/runs/..", "the working folder"),
        ("../data/dogs", "it is the pairs of dog"),
        ("../data/dogs/run", "it lies in the pairs of dog"),
        ("../data", "it holds the pairs of dog"),
        ("../link/run", "it lies in the pairs of dog"),
        ("../model/unet/run", "it lies in the base"),
        ("../data/cats", "it holds a picture of the pairs"),
        ("../adapter.safetensors", "it is the adapter"),
        ("../adapter.safetensors/run", "a file lies where a folder is needed"),
        ("n" * 300, "a name of it is longer"),
        ("runs/" + "ü" * 128, "a name of it is longer"),
        ("/proc/foo", "cannot be written"),
        ("a\0b", "a zero byte"),
    ],
)
def test_a_folder_of_outputs_keeps_away_from_data(here: Path, output: str, found: str) -> None:
    (here / "link").symlink_to(here / "data/dogs")
    before = sorted(here.rglob("*"))
    with pytest.raises(OutputError, match=found):
        check_place(Path(output), used(here), folder=True)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("output", ["runs/dog", "../data/run", "../home/me/run", "../new"])
def test_a_folder_of_its_own_is_free(here: Path, output: str) -> None:
    check_place(Path(output), used(here), folder=True)


def test_a_run_s_folder_may_hold_the_adapter_that_is_read(here: Path) -> None:
    (here / "adapter.safetensors").rename(here / "work/runs/adapter.safetensors")
    adapter = here / "work/runs/adapter.safetensors"
    check_place(Path("runs"), [Used("the adapter", adapter, shared=True)], folder=True)


@pytest.mark.parametrize(
    ("files", "output"),
    [
        (("pairs.jsonl",), "set"),
        (("metadata.csv",), "set"),
        (("seeds.json",), "set"),
        (("images/1.png", "control/1.png"), "set"),
        (("1_start.png", "1_end.png"), "set"),
        (("model_index.json",), "set"),
        (("dogs/pairs.jsonl",), "set"),
        (("all/dogs/pairs.jsonl",), "set"),
        (("pairs.jsonl", "1.png"), "set/run"),
        (("model_index.json",), "set/unet/run"),
    ],
)
def test_what_another_run_reads_is_no_place_for_this_one(
    here: Path, files: tuple[str, ...], output: str
) -> None:
    for file in files:
        (here / "set" / file).parent.mkdir(parents=True, exist_ok=True)
        (here / "set" / file).touch()
    with pytest.raises(OutputError, match=r"it (is|holds|lies in) the (pairs|model)"):
        check_place(here / output, folder=True)


def test_a_project_with_a_table_at_its_top_has_room_for_runs(here: Path) -> None:
    (here / "project" / "pictures").mkdir(parents=True)
    (here / "project" / "pairs.jsonl").touch()
    check_place(
        here / "project/runs/dog", [Used("the pairs", here / "project/pairs.jsonl")], folder=True
    )


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("../adapter.safetensors", "it is the adapter"),
        ("../hard.safetensors", "it is the adapter"),
        ("../data/dogs/new.png", "it lies in the pairs"),
        ("runs", "it is a folder"),
        ("pipe", "a device or a pipe"),
        ("/dev/null", "a device or a pipe"),
    ],
)
def test_a_file_keeps_away_from_data(here: Path, output: str, found: str) -> None:
    os.link(here / "adapter.safetensors", here / "hard.safetensors")
    os.mkfifo("pipe")
    with pytest.raises(OutputError, match=found):
        check_place(Path(output), used(here))


def test_a_file_may_lie_beside_what_is_read(here: Path) -> None:
    check_place(here / "merged.safetensors", used(here))
    check_place(Path("new/sheet.png"), used(here))
    assert not Path("new").exists()
