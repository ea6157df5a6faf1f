"""Pictures and answers that lie elsewhere: the same answers as here, and runs that go on."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pytest
from builders.bases import toy_base
from builders.pairs import put, scene
from PIL import Image

from customize.cli.main import main
from customize.editing.folders import elsewhere
from customize.editing.folders.find_elsewhere import pictures_at
from customize.editing.folders.manifest import MANIFEST
from customize.editing.folders.page import PAGE
from customize.errors import EditError, Fault
from customize.files.remote import Remote, remote


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def memory() -> Iterator[Any]:
    """Return the storage in memory, empty before and after."""
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    yield storage
    storage.store.clear()


def edit(base: Path, what: Path | str, out: Path | str, *more: str) -> int:
    fixed = ["--base", str(base), "--steps", "1", "--device", "cpu", "-o", str(out)]
    return main(["edit-folder", str(what), "make it red", *fixed, *more])


def png(number: int, size: tuple[int, int] = (32, 32)) -> bytes:
    content = io.BytesIO()
    scene(number, size).save(content, "PNG")
    return content.getvalue()


def answers(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_answers_are_those_of_a_folder_here(
    base: Path, tmp_path: Path, memory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a 2.png", "a 10.png", "sub/b#1.png", "sub/ü.png")
    for number, name in enumerate(names):
        put(tmp_path / "shots" / name, number)
        memory.pipe_file(f"/bucket/shots/{name}", (tmp_path / "shots" / name).read_bytes())
    memory.pipe_file("/bucket/shots/notes.txt", b"no picture")
    memory.pipe_file("/bucket/shots/torn.png", png(9)[:200])
    assert edit(base, tmp_path / "shots", tmp_path / "here") == 0
    assert edit(base, "memory://bucket/shots", "memory://bucket/night/") == 1
    told = capsys.readouterr().out
    assert "torn.png" in told
    assert "memory://bucket/night/index.html: before and after" in told
    expected = answers(tmp_path / "here")
    assert expected.keys() == set(names)
    for name, content in expected.items():
        assert memory.cat_file(f"/bucket/night/{name}") == content, name
    page = memory.cat_file(f"/bucket/night/{PAGE}").decode()
    assert page.count("<figure>") == 4

    # the same again makes nothing; a changed picture, and a lost answer, are made anew
    times = {name: memory.modified(f"/bucket/night/{name}") for name in names}
    assert edit(base, "memory://bucket/shots", "memory://bucket/night") == 1
    assert times == {name: memory.modified(f"/bucket/night/{name}") for name in names}
    memory.pipe_file("/bucket/shots/a 2.png", put(tmp_path / "other.png", 7).read_bytes())
    memory.rm_file("/bucket/night/sub/ü.png")
    memory.rm_file("/bucket/shots/torn.png")
    capsys.readouterr()
    assert edit(base, "memory://bucket/shots", "memory://bucket/night") == 0
    assert "2 made in" in capsys.readouterr().out
    assert memory.cat_file("/bucket/night/sub/ü.png") == expected["sub/ü.png"]
    assert memory.cat_file("/bucket/night/a 2.png") != expected["a 2.png"]

    # from elsewhere to here, by a pattern; and from here to a folder named by address
    assert edit(base, "memory://bucket/shots/sub/*.png", tmp_path / "mixed") == 0
    assert answers(tmp_path / "mixed").keys() == {"b#1.png", "ü.png"}
    assert edit(base, tmp_path / "shots", f"file://{tmp_path / 'there'}") == 0
    assert answers(tmp_path / "there") == expected


def test_a_run_that_ends_badly_goes_on(
    base: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        memory.pipe_file(f"/bucket/shots/{number}.png", png(number))
    memory.pipe_file("/bucket/out/3.png", b"somebody's")
    monkeypatch.setattr(elsewhere, "MOST_WAITING", 1)
    real, written = Remote.write, list[str]()

    def write(self: Remote, content: bytes) -> None:
        if self.name.endswith(".png") and written:
            raise SystemExit(99)  # as a machine that goes away
        real(self, content)
        written.append(self.name) if self.name.endswith(".png") else None

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "write", write)
        with pytest.raises(SystemExit):
            edit(base, "memory://bucket/shots", "memory://bucket/out", "--at-once", "1")
    assert len(written) == 1
    records = memory.cat_file(f"/bucket/out/{MANIFEST}").decode()
    assert f'"{written[0]}"' in records
    capsys.readouterr()
    assert edit(base, "memory://bucket/shots", "memory://bucket/out", "--at-once", "1") == 1
    told = capsys.readouterr().out
    assert "2 made in" in told
    assert "3.png is there already" in told
    assert memory.cat_file("/bucket/out/3.png") == b"somebody's"
    with Image.open(io.BytesIO(memory.cat_file("/bucket/out/2.png"))) as answer:
        assert answer.size == (32, 32)


def test_names_of_strangers_lead_nowhere(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = ["../up.png", "a/../../up.png", "a//b.png", "c\\d.png", "e\0.png", "ok.png", ".h.png"]
    monkeypatch.setattr(Remote, "pictures", lambda self: (self, hostile))
    root, found = pictures_at("memory://bucket/shots", Path("out"))
    assert str(root) == "memory://bucket/shots"
    assert [one for one in found if not isinstance(one, Fault)] == [PurePosixPath("ok.png")]
    assert sum(isinstance(one, Fault) for one in found) == 5


def test_what_cannot_be_reached_is_one_message(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe_file("/bucket/edits.csv", b"image\na.png\n")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for address, said in (
        ("s3://bucket/shots", r'needs a package .*; run `pip install "customize\[storage\]"'),
        ("nosuch://bucket/shots", "cannot be opened"),
        ("memory://bucket/none/*.png", ""),
        ("zip://x.png::memory://bucket/a.zip", "one address inside another"),
        ("memory://bucket/edits.csv", "a table elsewhere"),
    ):
        if said:
            with pytest.raises(EditError, match=said):
                pictures_at(address, tmp_path)
        else:
            assert pictures_at(address, tmp_path)[1] == []
    memory.pipe_file("/bucket/shots/a.png", png(1))
    memory.pipe_file("/bucket/shots/night/a.png", png(1))
    with pytest.raises(EditError, match="it is the folder of the pictures"):
        pictures_at("memory://bucket/shots", remote("memory://bucket/shots"))
    inside = remote("memory://bucket/shots/night")
    assert pictures_at("memory://bucket/shots/", inside)[1] == [PurePosixPath("a.png")]
