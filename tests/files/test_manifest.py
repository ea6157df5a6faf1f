"""What runs wrote: replaced as a whole, brought back where that fails, and nothing else touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from customize.errors import OutputError, OutputExistsError
from customize.files.manifest import NAME, Manifest

NAMES = ("adapter", "loss.png", "previews/step_*.png")


def listed(folder: Path) -> dict[str, str]:
    """Return the files of a folder and their texts, the list of them left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(files)}


def of(folder: Path) -> Manifest:
    """Open the list as training does."""
    return Manifest(folder, "train", "adapter")


def write(folder: Path, text: str) -> None:
    """Write what a run writes."""
    (folder / "previews").mkdir(exist_ok=True)
    for name in ("loss.png", "previews/step_1.png", "adapter"):
        (folder / name).write_text(text)


def finished(folder: Path, text: str = "first") -> dict[str, str]:
    """Leave a whole run there."""
    manifest = of(folder)
    manifest.begin(NAMES)
    write(folder, text)
    manifest.finish()
    return listed(folder)


def test_a_run_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "previews" / "step_7.png").write_text("mine, after the run")
    manifest = of(tmp_path)
    manifest.begin_anew(("adapter", "loss.png"))
    assert manifest.replaces
    assert "adapter" not in listed(tmp_path)
    (tmp_path / "adapter").write_text("second")
    manifest.finish()
    assert listed(tmp_path) == {
        "adapter": "second",
        "notes.txt": "mine",
        "previews/step_7.png": "mine, after the run",
    }


@pytest.mark.parametrize("name", ["loss.png", "adapter", "previews/step_3.png"])
def test_what_no_run_wrote_is_never_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    for begin in (of(tmp_path).begin, of(tmp_path).begin_anew):
        with pytest.raises(OutputExistsError, match="no run wrote what lies there"):
            begin(NAMES)
    assert listed(tmp_path) == {name: "mine"}


def test_what_was_changed_after_the_run_is_its_changers(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "loss.png").write_text("mine now")
    before = listed(tmp_path)
    with pytest.raises(OutputExistsError, match=r"loss\.png"):
        of(tmp_path).begin_anew(NAMES)
    assert listed(tmp_path) == before
    manifest = of(tmp_path)
    manifest.begin_anew(("adapter",))  # a run that writes none leaves it
    assert (tmp_path / "loss.png").read_text() == "mine now"
    (tmp_path / "adapter").write_text("second")
    manifest.finish()
    assert listed(tmp_path) == {"adapter": "second", "loss.png": "mine now"}


def test_a_run_that_fails_brings_the_last_one_back(tmp_path: Path) -> None:
    before = finished(tmp_path)
    manifest = of(tmp_path)
    manifest.begin_anew((*NAMES, "rescued"))
    (tmp_path / "loss.png").write_text("second")
    (tmp_path / "rescued").write_text("what it had")
    manifest.undo(keep=("rescued",))
    assert listed(tmp_path) == {**before, "rescued": "what it had"}
    of(tmp_path).begin_anew((*NAMES, "rescued"))  # all of it is known to be a run's


def replace_and_fail(folder: Path) -> None:
    """Begin anew, write something, and give up."""
    manifest = of(folder)
    manifest.begin_anew(NAMES)
    (folder / "loss.png").write_text("second")
    manifest.undo()


def test_wherever_a_replacement_is_killed_a_whole_run_stays(tmp_path: Path) -> None:
    """Cut a replacement short before each change of the disk, and begin again."""
    before, calls, cut_short = finished(tmp_path / "first"), 0, True
    while cut_short:
        folder = tmp_path / f"cut_{calls}"
        shutil.copytree(tmp_path / "first", folder)
        cut_short = cut(folder, calls)
        there = listed(folder)
        for name, text in before.items():
            assert text in (there.get(name), there.get(f".replaced-train/{name}"))
        replace_and_fail(folder)
        assert listed(folder) == before
        calls += 1
    assert calls == 10  # five changes on the way there, four back, and then none was cut short


def cut(folder: Path, after: int) -> bool:
    """Replace and give up, but break at the `after`th change; say whether it came to that."""
    left, usual = after, os.replace

    def replace(*arguments: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        usual(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            replace_and_fail(folder)
        except KeyboardInterrupt:
            return True
    return False


def test_a_whole_run_is_not_taken_for_a_half_one(tmp_path: Path) -> None:
    """A kill between a run's last file and the clearing up leaves two whole runs."""
    finished(tmp_path)
    of(tmp_path).begin_anew(NAMES)
    write(tmp_path, "second")  # and killed before `finish`
    manifest = of(tmp_path)
    manifest.begin_anew(NAMES)
    (tmp_path / "loss.png").write_text("third")
    manifest.undo()
    assert listed(tmp_path)["adapter"] == "second"


def test_two_kinds_of_runs_share_a_folder(tmp_path: Path) -> None:
    finished(tmp_path)
    card = Manifest(tmp_path, "card", "README.md")
    card.begin(("README.md",))
    (tmp_path / "README.md").write_text("a card")
    card.finish()
    manifest = of(tmp_path)
    manifest.begin_anew(NAMES)
    write(tmp_path, "second")
    manifest.finish()
    assert (tmp_path / "README.md").read_text() == "a card"
    assert Manifest(tmp_path, "card", "README.md").owns(tmp_path / "README.md")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[]",
        json.dumps({"format": "customize-manifest", "version": 2, "runs": {}}),
        json.dumps({"format": "customize-manifest", "version": 1, "runs": {"train": {"x": 1}}}),
        json.dumps(
            {
                "format": "customize-manifest",
                "version": 1,
                "runs": {"train": {"names": {"../../precious": None}}},
            }
        ),
        json.dumps(
            {"format": "customize-manifest", "version": 1, "runs": {"a": {"names": ["adapter"]}}}
        ),
    ],
)
def test_a_damaged_list_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(OutputError, match="is damaged"):
        of(tmp_path)
