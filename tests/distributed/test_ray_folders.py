"""A cluster of two workers gives the answers of one process, also when one of them dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from builders.bases import toy_base
from builders.clusters import worker_processes
from builders.pairs import put

from customize.cli.main import main

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_a_cluster_equals_one_process_and_survives_a_death(cluster: None, tmp_path: Path) -> None:
    base = toy_base(tmp_path / "base")
    shots = tmp_path / "shots"
    for number in range(24):
        put(shots / f"{number:02}.png", number)
    put(shots / "broken.png", "no picture")

    def run(out: str, *more: str) -> int:
        fixed = ["--base", str(base), "--device", "cpu", "--steps", "8", "--at-once", "2"]
        return main(
            ["edit-folder", str(shots), "make it red", "-o", str(tmp_path / out), *fixed, *more]
        )

    assert run("alone") == 1  # one picture is broken
    killed: list[int] = []

    def kill_one() -> None:
        while len(contents(tmp_path / "many")) < 4:
            time.sleep(0.01)
        pid = worker_processes("MapBatches(Worker)")[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert run("many", "--ray", "--workers", "2") == 1
    killer.join(timeout=10)
    assert len(killed) == 1
    assert contents(tmp_path / "many") == contents(tmp_path / "alone")
    assert len(contents(tmp_path / "many")) == 24
    records = (tmp_path / "many" / "manifest.jsonl").read_text().splitlines()
    assert len(records) == 25  # the head and each answer once
