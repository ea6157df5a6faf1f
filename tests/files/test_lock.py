"""A folder in use: by whom, since when, and free again when its holder dies."""

from __future__ import annotations

import getpass
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from customize.errors import OutputError
from customize.files.lock import NAME, in_use

HOLDER = """
import sys, time
from pathlib import Path
from customize.files.lock import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def use(folder: Path) -> None:
    """Use a folder for a moment."""
    with in_use(folder):
        pass


def break_in(folder: Path, file: str | None = None) -> None:
    """Use a folder and fail, perhaps after writing a file."""
    with in_use(folder):
        if file:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
        else:
            (folder / "cache").mkdir()
        raise ValueError("broke")


def test_a_folder_in_use_says_by_whom_and_a_dead_lock_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), "--an-option"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(OutputError) as caught:
        use(folder)
    said = str(caught.value)
    assert f"it is in use by {getpass.getuser()}, process {holder.pid} on " in said
    assert "since 20" in said
    assert "--an-option" in said
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (folder / NAME).exists()
    use(folder)
    assert not (folder / NAME).exists()


def test_one_process_uses_a_folder_once(tmp_path: Path) -> None:
    with in_use(tmp_path / "run"), pytest.raises(OutputError, match="it is in use by"):
        use(tmp_path / "run")
    use(tmp_path / "run")


def test_a_fault_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broke"):
        break_in(tmp_path / "runs" / "dog")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="broke"):
        break_in(tmp_path / "runs" / "dog", "cache/pairs")
    assert (tmp_path / "runs" / "dog" / "cache" / "pairs").exists()


def test_a_fault_leaves_a_folder_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "dog" / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="broke"):
        break_in(tmp_path / "dog")
    assert (tmp_path / "dog" / "empty").is_dir()
