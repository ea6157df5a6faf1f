"""Many pictures in one run: does memory grow, and does a killed run end like an unbroken one?

    python benchmarks/folder_endurance.py                      2,000 pictures, killed five times
    python benchmarks/folder_endurance.py --count 200 --kills 2

Drawn scenes of the embedded base's world, two sampling steps each, by `customize edit-folder` in a
process of its own. Memory is what the process holds once 100 pictures are recorded and at its end;
kills come at random moments, without warning. Writes `benchmarks/results/folder_endurance.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from customize.embedded.world.edits import random_edit

RESULTS = Path(__file__).parent / "results"
WARM = 100
"""Pictures after which all that a run ever opens is open."""


def main() -> None:
    """Measure and write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shots, whole, broken = (Path(folder) / name for name in ("shots", "whole", "broken"))
        draw(shots, arguments.count)
        early, late, seconds = watched(shots, whole)
        kills = killed(shots, broken, arguments.kills, seconds, random.Random(arguments.seed))
        found = {
            "pictures": arguments.count,
            "seconds": seconds,
            "mib_after_100": early,
            "mib_at_the_end": late,
            "growth": late / early - 1,
            "pictures_there_at_each_kill": kills,
            "answers": len(answers(whole)),
            "identical": answers(whole) == answers(broken),
        }
    print(json.dumps(found, indent=2))
    (RESULTS / "folder_endurance.json").write_text(json.dumps(found, indent=2) + "\n")


def draw(folder: Path, count: int) -> None:
    """Draw sources, each another scene."""
    folder.mkdir()
    for number in range(count):
        source = random_edit((41, number), test=True, size=64).source_HWC
        Image.fromarray(source).save(folder / f"{number:05}.png")


@contextmanager
def running(shots: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Edit the folder in a process, killed at the end if it still runs."""
    command = [sys.executable, "-m", "customize", "edit-folder", str(shots), "make it night"]
    options = ["-o", str(output), "--steps", "2"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def watched(shots: Path, output: Path) -> tuple[float, float, float]:
    """Run to the end; return MiB after 100 pictures and at the end, and the seconds it took."""
    start, early, late = time.monotonic(), 0.0, 0.0
    with running(shots, output) as process:
        while process.poll() is None:
            late = resident(process.pid) or late
            if not early and recorded(output) >= WARM:
                early = late
            time.sleep(0.2)
        if process.returncode or not early:
            raise SystemExit(f"edit-folder ended with {process.returncode}")
    return early, late, time.monotonic() - start


def killed(
    shots: Path, output: Path, kills: int, seconds: float, chance: random.Random
) -> list[int]:
    """Kill the run at random moments, each time further on, then let it end."""
    there = list[int]()
    for _ in range(kills):
        with running(shots, output) as process:
            time.sleep(seconds * chance.uniform(0.1, 1.5 / kills))
            process.send_signal(signal.SIGKILL)
            process.wait()
        there.append(recorded(output))
    with running(shots, output) as process:
        process.wait()
    return there


def recorded(output: Path) -> int:
    """Count the answers that the run's manifest knows."""
    try:
        return (output / "manifest.jsonl").read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return 0


def resident(pid: int) -> float:
    """Return the memory a process holds, in MiB; 0 when it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def answers(folder: Path) -> dict[str, bytes]:
    """Read every answer."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("0*.png"))}


if __name__ == "__main__":
    main()
