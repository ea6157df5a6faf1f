"""Kill -9 a training run at random moments; the same command must end with the same adapter.

    python benchmarks/kill_test.py --kills 20

Each kill has a run of its own: killed once at a random moment of its life, imports and last writes
included, every file it left read back, then run to its end and compared bit for bit with a run that
nobody disturbed. Prints a table; exits 1 on any difference or unreadable file. CPU, toy base, about
half a minute a kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from builders.runs import toy_recipe  # noqa: E402

from customize.drawing.table import table  # noqa: E402
from customize.training.checkpoint import read_checkpoint  # noqa: E402

CHANGES = {
    "train": {"steps": 30, "ema": 0.9},
    "save": {"every": 2},
    "preview": {"every": 10, "count": 1},
}
"""Much is written: checkpoints, sheets, the best adapter, the cache."""


def main() -> int:
    """Kill as often as asked and print what came of it."""
    parser = argparse.ArgumentParser(description="kill -9 a run at random moments")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        write_recipe(inputs)
        start = time.monotonic()
        assert train(inputs, inputs / "unbroken").wait() == 0, "the unbroken run failed"
        seconds = time.monotonic() - start
        print(f"the unbroken run took {seconds:.1f} s", flush=True)
        rows = [
            kill_once(inputs, inputs / f"run_{number}", chance.uniform(0, seconds))
            for number in range(arguments.kills)
        ]
    titles = ["killed after", "at step", "unreadable files", "ended", "bit-identical"]
    print(table(rows, titles))
    good = sum(row[2:] == ["0", "well", "yes"] for row in rows)
    print(f"{good} of {len(rows)} kills left no trace")
    return 0 if good == len(rows) else 1


def write_recipe(folder: Path) -> None:
    """Write the toy base, pairs and recipe that every run shares."""
    recipe = toy_recipe(folder, **CHANGES)
    changes = {"preview": {**CHANGES["preview"], "images": str(folder / "unseen")}}
    recipe = toy_recipe(folder, **(CHANGES | changes))
    # JSON is YAML
    (folder / "recipe.yaml").write_text(recipe.model_dump_json(exclude_none=True))


def train(folder: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start the command a user would type."""
    command = [sys.executable, "-m", "customize", "train", str(folder / "recipe.yaml")]
    return subprocess.Popen(
        [*command, "--set", f"output={output}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_once(folder: Path, output: Path, delay: float) -> list[str]:
    """Kill a run after `delay` seconds, look at what it left, and let it finish."""
    child = train(folder, output)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = unreadable(output)
    finished = (output / "adapter.safetensors").exists()
    step = "finished" if finished else step_reached(output)
    ended = 0 if finished else train(folder, output).wait()
    left += [*unreadable(output), *([] if finished else output.rglob(".*.tmp"))]
    same = ended == 0 and equal(output, folder / "unbroken")
    well = "well" if ended == 0 else f"exit code {ended}"
    row = [f"{delay:.2f} s", step, str(len(left)), well, "yes" if same else "NO"]
    print("  ".join(row), flush=True)
    return row


def unreadable(output: Path) -> list[Path]:
    """List the files a user or the next run would open and could not; temporaries are neither."""
    found = []
    for path in output.rglob("[!.]*"):
        try:
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".png":
                with Image.open(path) as picture:
                    picture.load()
        except Exception:  # whatever a broken file makes its reader raise
            found.append(path)
    return found


def step_reached(output: Path) -> str:
    """Say at which step the run will go on."""
    checkpoint = output / "checkpoint.safetensors"
    return str(read_checkpoint(checkpoint).step) if checkpoint.exists() else "0"


def equal(output: Path, unbroken: Path) -> bool:
    """Compare the last and the best adapter of two runs."""
    for name in ("adapter.safetensors", "best.safetensors"):
        ours, theirs = load_file(output / name), load_file(unbroken / name)
        if not ours or ours.keys() != theirs.keys():
            return False
        if not all(torch.equal(ours[key], theirs[key]) for key in ours):
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
