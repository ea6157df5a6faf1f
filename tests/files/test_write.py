"""Files and folders: whole or not at all, as readable as the umask says, and what a kill leaves."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from customize.errors import OutputError, OutputExistsError
from customize.files.disk import disk_of, is_full, naming_disk
from customize.files.write import (
    refuse_existing,
    remove_temporaries,
    replacing,
    replacing_folder,
    write_text,
)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_are_as_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    usual = os.umask(umask)
    try:
        with replacing(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.ones(1)}, temporary)  # writes 0600, whatever the umask
        with replacing_folder(tmp_path / "model") as temporary:
            save_file({"a": torch.ones(1)}, temporary / "a.safetensors")
    finally:
        os.umask(usual)
    for path, most in (
        (tmp_path / "a.safetensors", 0o666),
        (tmp_path / "model" / "a.safetensors", 0o666),
        (tmp_path / "model", 0o777),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == most & ~umask


def half_written(path: Path, error: Exception) -> None:
    """Write the first half of a file, then break."""
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def half_written_folder(path: Path, error: Exception) -> None:
    """Write the first file of a folder, then break."""
    with replacing_folder(path) as temporary:
        (temporary / "first").write_text("half")
        raise error


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    for write in (half_written, half_written_folder):
        with pytest.raises(ValueError, match="broke"):
            write(tmp_path / "a.txt", ValueError("broke"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_long_name_needs_no_longer_one_while_it_is_written(tmp_path: Path) -> None:
    assert write_text(tmp_path / ("n" * 251 + ".txt"), "a").read_text() == "a"


def test_what_a_killed_process_was_writing_goes_with_the_next_one(tmp_path: Path) -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys; from pathlib import Path\n"
            "from customize.files.write import replacing, replacing_folder\n"
            "folder = Path(sys.argv[1])\n"
            "with replacing_folder(folder / 'b') as b, replacing(folder / 'a') as a:\n"
            "    a.write_text('half'), (b / 'c').write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n",
            str(tmp_path),
        ]
    )
    assert killed.returncode == -signal.SIGKILL
    half, _ = (path.name for path in tmp_path.glob(".customize-*.tmp"))
    with replacing(tmp_path / "mine") as mine:
        remove_temporaries(tmp_path)
        mine.write_text("of a process that lives")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / half).write_text("half")
    with pytest.raises(OutputExistsError):
        refuse_existing(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("unable to allocate shared memory(shm): No space left on device (28)"),
        ValueError("I/O error: No space left on device (os error 28)"),
        ValueError("database or disk is full"),
    ],
)
def test_a_full_disk_is_named_whatever_the_library_calls_it(
    tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(OutputError, match=r"the disk of .* is full") as caught:
        half_written(tmp_path / "new" / "a", error)
    assert f"the disk of {disk_of(tmp_path)} " in str(caught.value)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert is_full(error)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="28"), naming_disk(tmp_path):
        raise ValueError("expected shape (28)")


def test_real_writers_on_a_real_full_disk(small_disk: Path) -> None:
    (small_disk / "mine.txt").write_text("keep me")
    big = {"a": torch.ones(600_000)}
    with pytest.raises(OutputError) as caught, replacing(small_disk / "a.safetensors") as temporary:
        save_file(big, temporary)
    assert f"the disk of {small_disk} is full" in str(caught.value)
    with pytest.raises(OutputError, match="is full"), replacing_folder(small_disk / "m") as folder:
        save_file(big, folder / "a.safetensors")
    with pytest.raises(OutputError, match="is full"):
        write_text(small_disk / "long.txt", "a" * 3_000_000)
    assert [path.name for path in small_disk.iterdir()] == ["mine.txt"]
