"""Training in a process of its own: started, stopped, and read from the run's folder.

The page may be closed, and its server killed: the process goes on, and writes what it always does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from customize.errors import StudioError
from customize.files import write_text
from customize.training.run_folder import RunFolder

LOG = "studio.log"
"""What the process prints, beside its run."""
_PROCESS = ".studio.process"
_TAIL = 4000
_CURVE = 400
"""Points of the loss curve at most."""


@dataclass(frozen=True)
class Progress:
    """How a run stands: `step` of `steps`, `losses` as (step, loss), seconds a step and left."""

    state: str
    step: int = 0
    steps: int = 0
    losses: tuple[tuple[int, float], ...] = ()
    pace: float | None = None
    preview: Path | None = None
    told: str = ""

    @property
    def running(self) -> bool:
        """Whether there will be more to see."""
        return self.state in ("running", "starting")

    @property
    def left(self) -> float | None:
        """Seconds left, as far as the pace tells."""
        return None if self.pace is None else self.pace * (self.steps - self.step)


def start(folder: Path, words: Sequence[str], root: Path) -> int:
    """Run `customize` with `words` in a process of its own that writes to the run's folder.

    It starts at `root`, the project folder. Returns its id. Raises StudioError where a process
    trains in the folder already.
    """
    run = RunFolder(folder)
    if (other := run.trainer() or _started(folder)) is not None:
        raise StudioError(
            f"{folder.name}: process {other} is training there; expected one at a time; wait for "
            "it, or stop it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # paths typed by nobody: the words start with a command, and names are checked
    command = [sys.executable, "-m", "customize", *words]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
        )
    born = psutil.Process(process.pid).create_time()
    write_text(folder / _PROCESS, f"{process.pid} {born}")
    _CHILDREN.append(process)
    return process.pid


_CHILDREN: list[subprocess.Popen[bytes]] = []
"""Processes of this server, to be asked whether they ended."""


def _started(folder: Path) -> int | None:
    """Return the id of the process that any server started for the folder, while it lives."""
    for child in _CHILDREN:
        child.poll()
    try:
        number, born = (folder / _PROCESS).read_text("utf-8").split()
        process = psutil.Process(int(number))
        return process.pid if process.create_time() == float(born) else None
    except (OSError, ValueError, psutil.Error):
        return None


def stop(folder: Path) -> str:
    """Ask the process that trains in the folder to finish its step, save and end."""
    process = RunFolder(folder).trainer() or _started(folder)
    if process is None:
        return "nothing is training there"
    os.kill(process, signal.SIGTERM)
    return "it finishes its step, saves and stops; Start goes on from there"


def progress(folder: Path) -> Progress:
    """Read how the run in `folder` stands; a folder of any run will do, started here or not."""
    run = RunFolder(folder)
    board = _scalars(run.logs)
    losses = board.get("loss", [])
    steps = int(board["steps"][-1][2]) if board.get("steps") else 0
    previews = sorted(run.previews.glob("step_*.png"))
    if run.trainer() is not None:
        state = "running" if losses else "starting"
    elif _started(folder) is not None:
        state = "starting"
    elif run.adapter.is_file():
        state = "finished"
    elif run.checkpoint.is_file():
        state = "stopped"
    else:
        state = "failed" if (folder / LOG).is_file() else "not started"
    return Progress(
        state=state,
        step=losses[-1][1] if losses else 0,
        steps=steps,
        losses=_thinned([(step, value) for _, step, value in losses]),
        pace=_pace(losses),
        preview=previews[-1] if previews else None,
        told=_tail(folder / LOG),
    )


def _scalars(logs: Path) -> dict[str, list[tuple[float, int, float]]]:
    """Read TensorBoard's files: (time, step, value) by name."""
    files = sorted(logs.glob("events.out.tfevents*"))
    if not files:
        return {}
    board = _board(logs, f"{files[0].name} {files[0].stat().st_ino}")
    board.Reload()
    return {
        name: [(each.wall_time, each.step, each.value) for each in board.Scalars(name)]
        for name in board.Tags()["scalars"]
    }


@lru_cache(maxsize=8)
def _board(logs: Path, _: str) -> Any:
    """Open a run's files, known by the first; kept open, so that a look reads only what is new."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(logs), size_guidance={"scalars": 0})


def _pace(losses: Sequence[tuple[float, int, float]]) -> float | None:
    """Return the seconds a step took lately."""
    recent = losses[-20:]
    if len(recent) < 2 or recent[-1][1] == recent[0][1]:
        return None
    return (recent[-1][0] - recent[0][0]) / (recent[-1][1] - recent[0][1])


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Average neighbours, so that at most `_CURVE` points are left."""
    size = -(-len(points) // _CURVE) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((group[-1][0], sum(v for _, v in group) / len(group)) for group in groups)


def _tail(log: Path) -> str:
    """Return the last of what was printed, each line as it stood in the end."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-15:])
