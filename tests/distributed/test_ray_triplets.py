"""A cluster of two workers draws the triplets of one process, also when one of them dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from builders.clusters import worker_processes
from builders.pairs import put
from builders.text_to_image import toy_drawing_base
from builders.writers import ToyWriter

from customize.cli.main import main
from customize.synthesis import run as run_module

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "texts.jsonl"  # written ahead of what is drawn
    }


def test_a_cluster_draws_what_one_process_draws(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "open_writer", lambda _: ToyWriter())
    put(tmp_path / "captions.txt", "\n".join(f"dog {n}" for n in range(40)))
    base = toy_drawing_base(tmp_path / "base")
    put(
        tmp_path / "recipe.yaml",
        "captions: captions.txt\ntriplets: 40\noutput: out\n"
        f"pictures: {{base: {base}, steps: 8, at_once: 4}}\n"
        "filter: {pictures: -1, first: -1, second: -1, direction: -1, keep: 2, most: 4, alike: 1}\n"
        "writer: {kind: local, model: none}\n",
    )

    def run(output: str, *more: str) -> None:
        assert main(["synthesize", "recipe.yaml", "--set", f"output={output}", *more]) == 0

    run("alone")
    killed: list[int] = []

    def kill_one() -> None:
        samples = tmp_path / "many" / "samples.jsonl"
        while not samples.exists() or not samples.read_bytes():
            time.sleep(0.01)
        killed.append(worker_processes("ray::Drawer")[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    run("many", "--ray", "--workers", "2")
    killer.join(timeout=10)
    assert len(killed) == 1
    alone, many = contents(tmp_path / "alone"), contents(tmp_path / "many")
    assert alone.keys() == many.keys()
    assert [name for name in alone if alone[name] != many[name]] == []


def test_workers_without_a_cluster_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "recipe.yaml", f"captions: c.txt\noutput: {tmp_path / 'out'}\n")
    put(tmp_path / "c.txt", "a dog")
    assert main(["synthesize", str(tmp_path / "recipe.yaml"), "--workers", "2"]) == 2
    assert "--ray" in capsys.readouterr().err
