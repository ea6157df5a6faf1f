"""Exports cut short anywhere: the same call goes on to the same files, or all is as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import torch
from builders.bases import shake, toy_header, toy_resolved

from customize.adapters import LowRank, attach
from customize.adapters.file import AdapterFile, read_adapter, save_adapter
from customize.adapters.header import Taught
from customize.errors import OutputError, OutputExistsError
from customize.exporting import ExportOptions, Target, export, export_all, write
from customize.families import open_family
from customize.families.base import Base
from customize.families.words import Word
from customize.files.lock import in_use
from customize.files.manifest import NAME as MANIFEST

OPTIONS = ExportOptions(dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Return a toy base."""
    return toy_resolved(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> AdapterFile:
    """Return an adapter of that base, with a word."""
    word = Word("<my-dog>", "dog")
    attached = attach(open_family(base, learns_text=True), LowRank(rank=2), [word])
    shake(attached)
    header = toy_header(
        base_name=str(base.folder),
        base_fingerprint=base.fingerprint,
        method="low_rank",
        rank=2,
        concepts=(Taught("my_dog", "<my-dog>", instructions=("add <my-dog>",)),),
    )
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    return read_adapter(save_adapter(path, header, attached.state()))


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, the list of it left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Killed(BaseException):
    """Stands for a kill: nothing after it tidies up."""


@contextmanager
def killed_at(move: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Die at the `move`th rename, and from there on write and remove nothing more."""
    usual, left = os.replace, move

    def replace(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        usual(source, target)

    with patch.context() as inside:
        inside.setattr(os, "replace", replace)
        inside.setattr("customize.files.manifest.Manifest.undo", lambda _: None)
        inside.setattr("customize.files.write.remove", lambda _: None)
        try:
            yield
        except Killed:
            return
    pytest.skip(f"an export makes fewer than {move} moves")


@pytest.mark.parametrize("move", [0, 1, 2, 3])
def test_a_killed_export_is_repeated(
    base: Base, adapter: AdapterFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    export(adapter, base, "kohya", tmp_path / "whole", OPTIONS)
    with killed_at(move, monkeypatch):
        export(adapter, base, "kohya", tmp_path / "cut", OPTIONS)
    if any(name.endswith(".safetensors") for name in contents(tmp_path / "cut")):
        with pytest.raises(OutputExistsError):  # other options are another export
            export(adapter, base, "kohya", tmp_path / "cut", ExportOptions(dtype="float16"))
    export(adapter, base, "kohya", tmp_path / "cut", OPTIONS)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_killed_export_of_all_goes_on_where_it_was(
    base: Base, adapter: AdapterFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_all(adapter, base, tmp_path / "whole", OPTIONS, verify=False)
    with killed_at(12, monkeypatch):
        export_all(adapter, base, tmp_path / "cut", OPTIONS, verify=False)
    done = contents(tmp_path / "cut")
    assert done
    assert "README.md" not in done
    again: list[str] = []
    usual = write.write

    def counted(*arguments: object) -> write.Written:
        again.append(str(arguments[2]))
        return usual(*arguments)  # pyright: ignore

    monkeypatch.setattr(write, "write", counted)
    made = export_all(adapter, base, tmp_path / "cut", OPTIONS, verify=False)
    assert len(made.written) == 7
    assert 0 < len(again) < 8
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    with pytest.raises(OutputExistsError):
        export_all(adapter, base, tmp_path / "cut", OPTIONS, verify=False)


def test_a_target_that_was_damaged_meanwhile_is_written_again(
    base: Base, adapter: AdapterFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_all(adapter, base, tmp_path / "whole", OPTIONS, verify=False)
    with killed_at(12, monkeypatch):
        export_all(adapter, base, tmp_path / "cut", OPTIONS, verify=False)
    file = next((tmp_path / "cut" / "kohya").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    export_all(adapter, base, tmp_path / "cut", OPTIONS, verify=False)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_full_disk_leaves_nothing(base: Base, adapter: AdapterFile, small_disk: Path) -> None:
    for room, target in ((30_000, "kohya"), (500_000, "full-model"), (500_000, "all")):
        (small_disk / "fill").write_bytes(b"a" * (2**21 - room))
        with pytest.raises(OutputError, match=f"the disk of {small_disk} is full"):
            export_to(target, adapter, base, small_disk / "exports")
        assert [path.name for path in small_disk.iterdir()] == ["fill"]


def export_to(target: str, adapter: AdapterFile, base: Base, folder: Path) -> None:
    """Export to one target by its name, or to all."""
    if target == "all":
        export_all(adapter, base, folder, OPTIONS, verify=False)
    else:
        export(adapter, base, cast("Target", target), folder, OPTIONS)


def test_an_export_keeps_away_from_its_base_and_from_others(
    base: Base, adapter: AdapterFile, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="lies in the base"):
        export(adapter, base, "kohya", base.folder / "exports")
    with in_use(tmp_path / "busy"), pytest.raises(OutputError, match="it is in use by"):
        export_all(adapter, base, tmp_path / "busy", verify=False)
    assert not (base.folder / "exports").exists()


def test_what_is_overwritten_comes_back_where_that_fails(
    base: Base, adapter: AdapterFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(adapter, base, "kohya", tmp_path / "out", OPTIONS)
    before = contents(tmp_path / "out")
    shutil.copy(tmp_path / "out" / "my_dog.safetensors", tmp_path / "mine")
    calls = 0

    def broken(source: Path, target: Path, usual: object = os.replace) -> None:
        nonlocal calls
        calls += target.name == "my_dog.json"
        if calls == 2:  # once aside, once into its place
            calls += 1
            raise OSError(5, "Input/output error")
        assert callable(usual)
        usual(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        export(adapter, base, "kohya", tmp_path / "out", ExportOptions(), overwrite=True)
    assert contents(tmp_path / "out") == before
    assert torch.is_tensor(adapter.tensors[next(iter(adapter.tensors))])
