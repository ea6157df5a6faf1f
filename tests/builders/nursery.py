"""Processes for tests, forked from one that has imported the libraries: most of a short run's time.

They are killed, waited for and told apart like any others, and know nothing of the test's process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Child:
    """A process of the nursery; its output goes to the file `log`."""

    nursery: Nursery
    pid: int
    log: Path

    def returncode(self) -> int | None:
        """Return None while it runs, then its exit code, or the signal that ended it, negative."""
        return self.nursery.ask(pid=self.pid)

    def kill(self, signal: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, signal)

    def wait(self, seconds: float = 240) -> int:
        """Wait for its end and return its `returncode`."""
        deadline = time.monotonic() + seconds
        while (code := self.returncode()) is None:
            assert time.monotonic() < deadline, f"it still runs: {self.log.read_text()}"
            time.sleep(0.005)
        return code


class Nursery:
    """A process that has imported torch, diffusers and transformers, and forks for each program."""

    def __init__(self) -> None:
        """Start it; it imports while the test goes on."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)

    def __enter__(self) -> Nursery:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; children that still run go on."""
        self.process.communicate()

    def start(
        self, program: str, log: Path, *, folder: Path | None = None, **environment: str
    ) -> Child:
        """Run a program's text in a new process, in `folder`; its output is added to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        facts = {"program": program, "log": str(log), "folder": str(folder or Path.cwd())}
        return Child(self, self.ask(**facts, environment=environment), log)

    def ask(self, **facts: Any) -> Any:
        """Send facts, and return what comes back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(facts), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def _serve() -> None:
    """Answer every line: fork for a program, or tell how a child is."""
    ended = dict[int, int]()
    for line in sys.stdin:
        facts = json.loads(line)
        if (pid := facts.get("pid")) is None:
            if (answer := os.fork()) == 0:
                _run(**facts)
        else:
            if pid not in ended and (found := os.waitpid(pid, os.WNOHANG))[0]:
                ended[pid] = os.waitstatus_to_exitcode(found[1])
            answer = ended.get(pid)
        print(json.dumps(answer), flush=True)


def _run(program: str, log: str, folder: str, environment: Mapping[str, str]) -> NoReturn:
    """Be the process of a program to its end."""
    os.chdir(folder)
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code: object = 0
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    import accelerate  # noqa: F401
    import torch
    import torch.utils.tensorboard
    from diffusers import (  # noqa: F401
        AutoencoderKL,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel  # noqa: F401

    torch.set_num_threads(1)
    _serve()
