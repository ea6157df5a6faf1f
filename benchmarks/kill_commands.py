"""Kill -9 every long command at random moments; the same command must end as if nothing had been.

    python benchmarks/kill_commands.py --kills 20 [--only export score] [--when "at a write"]

Export to every target with its proof, a merge with a correction by edits, scores, a card, and a
base that is fitted: each kill has an output of its own. Half of them fall at a random moment of the
command's life; as many again just before a random one of its openings, renamings and removals in
the output, since what writes in its last moments is hardly ever met by time. Every file left is
read back; the command is repeated, and what it ends with is compared byte for byte with what an
undisturbed one made. Prints a table, writes `benchmarks/results/kill_commands.json`, exits 1 on any
difference. CPU, toy bases.
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
from typing import Literal, get_args

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
When = Literal["at a moment", "at a write"]
PRIVATE = re.compile(r"(^|/)(cache(/|\.sqlite)|logs/|\.customize\.json$)")
"""What says when it was written, and the list of hashes, which follow from the other files."""


def main() -> int:
    """Kill each command as often as asked, and print what came of it."""
    parser = argparse.ArgumentParser(description="kill -9 commands at random moments")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--when", nargs="+", choices=get_args(When), default=get_args(When))
    arguments = parser.parse_args()
    rows, bad = list[list[str]](), 0
    os.environ.update(HF_HUB_OFFLINE="1")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        write_inputs(inputs)
        for name in arguments.only:
            begun, whole = time.monotonic(), inputs / f"{name}_whole"
            if ended(start(inputs, name, whole)) != 0:
                raise SystemExit(f"the undisturbed {name}: {log_of(whole)}")
            seconds = time.monotonic() - begun
            told: dict[str, object] = {"seconds": round(seconds)}
            for when in arguments.when:
                chance = random.Random(f"{arguments.seed} {name} {when}")
                found = kill_often(inputs, name, arguments.kills, chance, when, seconds)
                rows.append([name, when, *map(str, found.values())])
                bad += found["kills"] - found["equal"] + found["unreadable"]
                told[when] = found
            keep(name, told)
    print(table(rows, ["", "killed", "kills", "left something", "unreadable", "equal"]))
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


def start(inputs: Path, name: str, output: Path, last: int | None = None) -> int:
    """Start the command in a process of its own, whose imports are done; returns its number.

    With `last` it kills itself just before it does so much to files of its output; how much it did
    in all is written beside its log.
    """
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
        done = count_writes(output, last)
        code = main_of_customize(spelled.split())
        output.with_suffix(".writes").write_text(str(len(done)))
    except BaseException:  # a fault of ours, to be told as one
        traceback.print_exc()
        code = 1
    os._exit(code)


def count_writes(output: Path, last: int | None) -> list[str]:
    """List what this process does to files of its output from now on; ends it at the `last`."""
    done, place = list[str](), str(output)

    def heard(event: str, facts: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            return
        read = event == "open" and not (isinstance(facts[2], int) and facts[2] & _WRITES)
        names = [os.fsdecode(fact) for fact in facts if isinstance(fact, str | bytes | os.PathLike)]
        if read or not any(place in name for name in names):
            return
        done.append(event)
        if len(done) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)
    return done


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def log_of(output: Path) -> str:
    """Read what a command wrote of its faults."""
    return output.with_suffix(".log").read_text()


def ended(process: int) -> int:
    """Wait for a process; returns its exit code, below 0 where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_often(
    inputs: Path, name: str, kills: int, chance: random.Random, when: When, seconds: float
) -> dict[str, int]:
    """Kill one command `kills` times, an output each, and count what came of it."""
    whole = inputs / f"{name}_whole"
    expected = contents(whole)
    writes = int(whole.with_suffix(".writes").read_text())
    assert expected, name
    found = {"kills": 0, "left": 0, "unreadable": 0, "equal": 0}
    number = 0
    while found["kills"] < kills:
        number += 1
        output = inputs / f"{name}_{when.replace(' ', '_')}_{number}"
        match when:
            case "at a moment":
                delay = chance.uniform(0.02, 1.0) * seconds
                killed, told = killed_after(inputs, name, output, delay), f"after {delay:.1f} s"
            case "at a write":
                last = chance.randint(1, writes)
                killed = ended(start(inputs, name, output, last)) == -signal.SIGKILL
                told = f"at write {last} of {writes}"
        left, broken = contents(output), unreadable(output)
        code = ended(start(inputs, name, output)) if killed else 0
        whole_already = code == 2 and left == expected
        traces = [path for path in output.rglob("*") if path.name.endswith((".tmp", ".lock"))]
        if whole_already:  # and so refused before it touches anything, a dead lock included
            traces = [path for path in traces if path.suffix != ".lock"]
        same = (code == 0 or whole_already) and contents(output) == expected and not traces
        found["kills"] += killed
        found["left"] += killed and bool(left)
        found["unreadable"] += len(broken)
        found["equal"] += killed and same
        told += f", {len(left)} files left: {'equal' if same else f'NOT equal (exit {code})'}"
        print(f"{name} {told}  {traces or ''}", flush=True)
        if same:
            shutil.rmtree(output)
    return found


def killed_after(inputs: Path, name: str, output: Path, seconds: float) -> bool:
    """Start a command and kill it; says whether it was still running."""
    child = start(inputs, name, output)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child) == -signal.SIGKILL


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


def keep(name: str, found: dict[str, object]) -> None:
    """Add a command's figures to those that are kept."""
    before = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    after = {**before, name: {**before.get(name, {}), **found}}
    RESULTS.write_text(json.dumps(after, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
