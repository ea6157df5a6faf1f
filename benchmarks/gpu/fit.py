"""Fit the embedded base on a GPU for some minutes and hand the weights back in pieces.

    python benchmarks/gpu/fit.py OUT --seconds 345

Goes on from the base that the last such fit here ended with, else from the one that ships; an
unfinished fit goes on where it was. A base of smaller pictures than --size gets a new autoencoder
first. Should compiling break the fit, it is tried without; should its time run out, it ends with
what its last state (at most a minute old) holds. Fits lie in runs/gpu_fit; OUT gets the base's
pieces and fit.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from pieces import write_pieces

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "customize" / "embedded" / "weights"
AUTOENCODER_SHARES = {True: 0.3, False: 0.1}
"""How much of the time learning the autoencoder gets, by whether it is a new one."""
STARTING_SECONDS, WRITING_SECONDS, RESCUE_SECONDS = 25.0, 15.0, 40.0
"""What is kept for imports, for writing the base, and for ending from a state if need be."""
LEAST_SECONDS, TRIAL_SECONDS = 5.0, 8.0
"""Of learning: for less no fit is begun; a trial takes no more."""
SIZES: dict[str, dict[str, Any]] = {
    "gpu": {"pool": 32_768, "batch": 512, "autoencoder_batch": 64, "snapshot": 500_000},
    "trial": {"pool": 8, "batch": 4, "autoencoder_batch": 4, "snapshot": 8},
}


def main() -> None:
    """Fit, hand back, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="where pieces and fit.json go")
    parser.add_argument("--seconds", type=float, default=345, help="for everything")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gpu_fit")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side of the pictures")
    parser.add_argument("--trial", action="store_true", help="a few samples, on any machine")
    options = parser.parse_args()
    ends_at = time.monotonic() + options.seconds
    folder, start = next_fit(options.runs)
    folder.mkdir(parents=True, exist_ok=True)
    attempts, model = list[dict[str, Any]](), folder / "model"
    for compiling in (True, False):
        limit = ends_at - time.monotonic() - RESCUE_SECONDS
        learning = limit - STARTING_SECONDS - WRITING_SECONDS
        if options.trial:
            learning = min(learning, TRIAL_SECONDS)
        if not model.exists() and learning >= LEAST_SECONDS:
            write_recipe(folder, start, learning, options)
            attempts.append(fit(folder, start, limit, compiling=compiling))
    if not model.exists() and (folder / "state" / "editor.safetensors").exists():
        write_recipe(folder, start, 0.01, options)  # its time is over: it ends at once
        attempts.append(fit(folder, start, RESCUE_SECONDS, compiling=False))
    told = {"start": str(start.name), "attempts": attempts, **learned(folder)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fit.json").write_text(json.dumps(told, indent=1) + "\n")
    if not model.exists():
        raise SystemExit("no base was fitted; the reasons stand above and in fit.json")
    pieces = write_pieces(model, options.out, "base")
    print(f"{told['samples']} samples; the base is in {len(pieces)} pieces in {options.out}")


def next_fit(runs: Path) -> tuple[Path, Path]:
    """Choose the folder to fit in and the base to go on from."""
    numbers = sorted(int(path.name) for path in runs.glob("[0-9]*") if path.name.isdigit())
    finished = [number for number in numbers if (runs / str(number) / "model").exists()]
    start = runs / str(finished[-1]) / "model" if finished else EMBEDDED
    unfinished = numbers and numbers[-1] not in finished
    number = numbers[-1] if unfinished else (numbers[-1] + 1 if numbers else 1)
    return runs / str(number), start


def write_recipe(folder: Path, start: Path, seconds: float, options: argparse.Namespace) -> None:
    """Write how to fit for so many seconds of learning."""
    config = json.loads((start / "vae" / "config.json").read_text())
    new = config["sample_size"] != options.size
    sizes, share = SIZES["trial" if options.trial else "gpu"], AUTOENCODER_SHARES[new]
    values = {
        "seed": fresh_seed(start),
        "workers": 1,
        **({"drawers": 1} if options.trial else {}),
        "size": options.size,
        "output": str(folder),
        "pool": sizes["pool"],
        "autoencoder": {
            "samples": 10_000_000,
            "batch": sizes["autoencoder_batch"],
            "learning_rate": 2e-3 if new else 6e-4,
            "cooldown": 0.4,
            "minutes": share * seconds / 60,
        },
        "clip": {"samples": 0, "batch": 64, "learning_rate": 3e-4},
        "editor": {
            "samples": 100_000_000,
            "batch": sizes["batch"],
            "learning_rate": 1.2e-3,
            "cooldown": 0.4,
            "minutes": (1 - share) * seconds / 60,
            "snapshot": sizes["snapshot"],
        },
    }
    (folder / "fit.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def fresh_seed(start: Path) -> int:
    """Take a seed from the weights that the fit goes on from: each fit draws another stretch."""
    weights = (start / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    return int(hashlib.sha256(weights).hexdigest()[:7], 16)


def fit(folder: Path, start: Path, limit: float, *, compiling: bool) -> dict[str, Any]:
    """Run `customize fit-base` for at most `limit` seconds; say how it ended."""
    began = time.monotonic()
    command = [sys.executable, "-m", "customize", "fit-base", str(folder / "fit.yaml")]
    switch = {} if compiling else {"TORCHDYNAMO_DISABLE": "1"}
    try:
        ended = subprocess.run(
            [*command, "--from", str(start)],
            cwd=ROOT,
            env={**os.environ, **switch},
            timeout=limit,
            check=False,
        )
        code: int | str = ended.returncode
    except subprocess.TimeoutExpired:
        code = "time ran out"
    return {"compiled": compiling, "ended": code, "seconds": round(time.monotonic() - began, 1)}


def learned(folder: Path) -> dict[str, Any]:
    """Read the fit's own log: samples and loss of each stage over time."""
    curves = dict[str, list[list[float]]]()
    for stage in ("autoencoder", "editor"):
        path = folder / "state" / f"{stage}.csv"
        lines = path.read_text().splitlines() if path.exists() else []
        curves[stage] = [[float(value) for value in line.split(",")] for line in lines]
    last = curves["editor"][-1:] or [[0.0]]
    return {"samples": int(last[0][0]), "curves": curves}


if __name__ == "__main__":
    main()
