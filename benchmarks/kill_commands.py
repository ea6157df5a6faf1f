"""Kill -9 every long command at random moments; the same command must end as if nothing had been.

    python benchmarks/kill_commands.py --kills 20 [--only export score]

Export to every target with its proof, a merge with a correction by edits, scores, a card, and a
base that is fitted: each kill has an output of its own, killed once at a random moment of the
command's life, its last writes included. Every file left is read back; the command is
repeated, and what it ends with is compared byte for byte with what an undisturbed one made. Prints
a table, writes `benchmarks/results/kill_commands.json`, exits 1 on any difference. CPU, toy bases.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from builders.merges import judged_world  # noqa: E402
from builders.runs import toy_pairs  # noqa: E402
from builders.scores import pairs_folder  # noqa: E402
from builders.text_to_image import toy_drawing_base  # noqa: E402

from customize.cli.main import main as main_of_customize  # noqa: E402
from customize.drawing.table import table  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "kill_commands.json"
COMMANDS = {
    "export": "export IN/my_dog.safetensors --to all --output OUT --dtype float32",
    "merge": "merge IN/my_dog.safetensors IN/look.safetensors --method distill --steps 6 "
    "--report OUT/report -o OUT/merged.safetensors",
    "score": "score IN/scored -a IN/my_dog.safetensors --clip embedded --steps 2 -o OUT",
    "card": "card IN/my_dog.safetensors --output OUT/README.md",
    "fit-base": "fit-base OUT.yaml",
}
"""IN is the folder of inputs, OUT that of the output."""
PRIVATE = re.compile(r"(^|/)(cache(/|\.sqlite)|logs/|\.customize\.json$)")
"""What says when it was written, and the list of hashes, which follow from the other files."""


def main() -> int:
    """Kill each command as often as asked, and print what came of it."""
    parser = argparse.ArgumentParser(description="kill -9 commands at random moments")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    arguments = parser.parse_args()
    rows, bad = list[list[str]](), 0
    os.environ.update(HF_HUB_OFFLINE="1")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        write_inputs(inputs)
        for name in arguments.only:
            chance = random.Random(f"{arguments.seed} {name}")
            found = kill_often(inputs, name, arguments.kills, chance)
            rows.append([name, *map(str, found.values())])
            bad += found["kills"] - found["equal"] + found["unreadable"]
            keep(name, found)
    print(table(rows, ["", "seconds", "kills", "left something", "unreadable", "equal"]))
    return 1 if bad else 0


def write_inputs(folder: Path) -> None:
    """Write toy bases, adapters, pairs and a recipe."""
    judged_world(folder)
    pairs_folder(folder / "scored", ["make it red"] * 4)
    toy_drawing_base(folder / "plain")
    toy_pairs(folder / "pairs")


FIT = {
    "samples": 24,
    "batch": 2,
    "warmup": 2,
    "optimizer": "adamw",
    "precision": "no",
    "save_every": 3,
    "resolution": 32,
}


def start(inputs: Path, name: str, output: Path) -> int:
    """Start the command in a process of its own, whose imports are done; returns its number."""
    recipe = {**FIT, "start": "plain", "pairs": "pairs", "output": str(output)}
    output.with_suffix(".yaml").write_text(json.dumps(recipe))  # JSON is YAML
    spelled = COMMANDS[name].replace("IN/", f"{inputs}/").replace("OUT", str(output))
    if process := os.fork():
        return process
    try:
        os.chdir(inputs)
        nothing = os.open(os.devnull, os.O_WRONLY)
        log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(nothing, 1)
        os.dup2(log, 2)
        code = main_of_customize(spelled.split())
    except BaseException:  # a fault of ours, to be told as one
        traceback.print_exc()
        code = 1
    os._exit(code)


def ended(process: int) -> int:
    """Wait for a process; returns its exit code, below 0 where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_often(inputs: Path, name: str, kills: int, chance: random.Random) -> dict[str, int]:
    """Kill one command `kills` times, an output each, and count what came of it."""
    whole, begun = inputs / f"{name}_whole", time.monotonic()
    if ended(start(inputs, name, whole)) != 0:
        raise SystemExit(f"the undisturbed {name}: {whole.with_suffix('.log').read_text()}")
    seconds, expected = time.monotonic() - begun, contents(whole)
    assert expected, name
    found = {"seconds": round(seconds), "kills": 0, "left": 0, "unreadable": 0, "equal": 0}
    number = 0
    while found["kills"] < kills:
        number += 1
        output = inputs / f"{name}_{number}"
        child = start(inputs, name, output)
        time.sleep(delay := chance.uniform(0.02, 1.0) * seconds)
        os.kill(child, signal.SIGKILL)
        killed = ended(child) == -signal.SIGKILL
        left, broken = contents(output), unreadable(output)
        code = ended(start(inputs, name, output)) if killed else 0
        whole_already = code == 2 and left == expected
        same = (code == 0 or whole_already) and contents(output) == expected
        traces = [path for path in output.rglob("*") if path.name.endswith((".tmp", ".lock"))]
        found["kills"] += killed
        found["left"] += killed and bool(left)
        found["unreadable"] += len(broken)
        found["equal"] += killed and same and not traces
        told = "equal" if same else f"NOT equal (exit {code})"
        print(f"{name} {delay:6.1f} s  {len(left)} files left  {told}  {traces or ''}", flush=True)
        if same and not traces:
            shutil.rmtree(output)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a command left for its user."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: path.read_bytes()
        for name, path in named.items()
        if not PRIVATE.search(name) and not name.endswith((".tmp", ".lock"))
        if ".tmp/" not in name
    }


def unreadable(output: Path) -> list[Path]:
    """List the files that a user or the next command would open and could not."""
    found = list[Path]()
    for path in output.rglob("[!.]*"):
        try:
            if ".tmp/" in path.relative_to(output).as_posix():
                continue
            match path.suffix:
                case ".safetensors":
                    load_file(path)
                case ".png":
                    with Image.open(path) as picture:
                        picture.load()
                case ".json":
                    json.loads(path.read_text("utf-8"))
        except Exception:  # whatever a broken file makes its reader raise
            found.append(path)
    return found


def keep(name: str, found: dict[str, int]) -> None:
    """Add a command's figures to those that are kept."""
    before = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**before, name: found}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
