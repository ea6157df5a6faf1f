"""A studio served in a process of its own, and pictures to drop on it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from PIL import Image

from customize.embedded.world.edits import random_edit

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTION = "make it darker in our style"


@dataclass(frozen=True)
class Served:
    """A studio's address, process and project folder."""

    url: str
    process: subprocess.Popen[bytes]
    project: Path


@contextmanager
def served(project: Path, port: int | None = None, **environment: str) -> Iterator[Served]:
    """Serve `project` until the end of the block."""
    port = port or free_port()
    words = [sys.executable, "-m", "customize", "studio", str(project), "--port", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    with (project / "server.log").open("ab") as log:
        process = subprocess.Popen(words, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, project / "server.log")
        yield Served(url, process, project)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            urlopen(url, timeout=10).close()
            return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the studio did not answer: {log.read_text()}")


def pictures_to_drop(folder: Path, count: int = 4, swapped: int = 2) -> list[Path]:
    """Write `1a.png`, `1b.png` and so on: a drawn scene and its dark, framed version.

    The pair of number `swapped` has them the wrong way round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number in range(1, count + 1):
        source_HWC = random_edit((77, number), kind="recolor").source_HWC
        edited_HWC = (source_HWC * 0.45).astype(np.uint8)
        edited_HWC[:4], edited_HWC[-4:] = (255, 127, 80), (255, 127, 80)
        both = [source_HWC, edited_HWC][:: -1 if number == swapped else 1]
        for letter, pixels_HWC in zip("ab", both, strict=True):
            paths.append(folder / f"{number}{letter}.png")
            Image.fromarray(pixels_HWC).save(paths[-1])
    return paths
