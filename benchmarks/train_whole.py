"""Whole trainings on a GPU: from the command to the saved adapter, and the memory they peak at.

    python benchmarks/train_whole.py             on a GPU: Stable Diffusion 1.5 and XL at their size
    python benchmarks/train_whole.py --trial     on a CPU: the quarter-width twin for three steps

`minute` is 250 steps of batch 8 through the command line, with an empty cache, previews as the
recipe's defaults have them, in seconds; bases lie on the disk. The other cases are peaks: keys and
values at batch 1 and 512 px, and a LoRA of XL at batch 1 and 1024 px with gradient checkpointing.
Asked of an H200: 60 s, 5 GB, 12 GB. Each case has a process of its own. Writes
`results/train_whole.json`, unless it is a trial.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from geometry import SIDES, Geometry, write_base, write_pairs
from memory_probe import imported, peak
from train_speed import RESULTS, ROOT, device_environment, machine

STEPS, TRIAL_STEPS = 250, 3
LORA = {"method": "low_rank", "rank": 4}
KV = {"method": "cross_attention_kv"}
CASES: dict[str, dict[str, Any]] = {
    "minute, K/V": {"geometry": "sd15", "adapter": KV, "train": {"batch": 8}, "limit": 60},
    "minute, LoRA": {"geometry": "sd15", "adapter": LORA, "train": {"batch": 8}, "limit": 60},
    "K/V, batch 1": {"geometry": "sd15", "adapter": KV, "train": {"batch": 1}, "limit": 5},
    "XL LoRA, 1024 px": {
        "geometry": "sdxl",
        "adapter": LORA,
        "train": {"batch": 1, "gradient_checkpointing": True},
        "limit": 12,
    },
}


def main() -> None:
    """Measure every case and print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("/tmp/customize_train_speed"))
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(_peak_of(options)))
        return
    if not options.trial and not torch.cuda.is_available():
        raise SystemExit("no GPU was found; whole trainings need one: try --trial on this machine")
    rows = list[dict[str, Any]]()
    for name, case in CASES.items():
        write_base(_base(options, name), _geometry(options, name))
        measured = _seconds(options, name) if name.startswith("minute") else _peak_gb(options, name)
        rows.append({"case": name, **measured, "limit": case["limit"]})
        print(json.dumps(rows[-1]), flush=True)
    if not options.trial:
        found = {"machine": machine(), "steps": STEPS, "rows": rows}
        (RESULTS / "train_whole.json").write_text(json.dumps(found, indent=1) + "\n")


def _geometry(options: argparse.Namespace, name: str) -> Geometry:
    return "quarter" if options.trial else CASES[name]["geometry"]


def _base(options: argparse.Namespace, name: str) -> Path:
    return options.work / _geometry(options, name)


def _recipe(options: argparse.Namespace, name: str) -> tuple[dict[str, Any], Path]:
    """Return the recipe, and its empty run folder."""
    side = SIDES[_geometry(options, name)]
    output = options.work / f"run {name}"
    shutil.rmtree(output, ignore_errors=True)
    steps = TRIAL_STEPS if options.trial else STEPS
    return {
        "base": {"name": str(_base(options, name))},
        "concepts": [{"name": "thing", "pairs": str(write_pairs(options.work / "whole", side))}],
        "adapter": CASES[name]["adapter"],
        "train": {"learning_rate": 1e-4, "steps": steps, **CASES[name]["train"]},
        # A trial proves that the command works; a preview takes a CPU longer than its steps.
        **({"preview": {"every": None}} if options.trial else {}),
        "output": str(output),
    }, output


def _seconds(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Train through the command line, once the libraries' files are in the page cache."""
    recipe, output = _recipe(options, name)
    path = options.work / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    began = time.perf_counter()
    _run(options, [str(ROOT / "customize" / "train_concept.py"), "--recipe", str(path)])
    seconds = time.perf_counter() - began
    assert (output / "adapter.safetensors").is_file()
    return {"seconds": round(seconds, 1)}


def _peak_gb(options: argparse.Namespace, name: str) -> dict[str, float]:
    trial = ["--trial"] if options.trial else []
    found = _run(options, [__file__, *trial, "--work", str(options.work), "--only", name])
    return json.loads(found.splitlines()[-1])


def _run(options: argparse.Namespace, arguments: list[str]) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=device_environment("cpu" if options.trial else "cuda"),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{ended.stderr[-3000:]}")
    return ended.stdout


def _peak_of(options: argparse.Namespace) -> dict[str, float]:
    """Encode and train a few steps in this process; previews are an edit's own matter."""
    start = imported()
    from customize.recipe import Recipe
    from customize.training.run import run_recipe

    recipe, _ = _recipe(options, options.only)
    recipe["train"]["steps"] = TRIAL_STEPS
    recipe["preview"] = {"every": None}
    run_recipe(Recipe.model_validate(recipe), log=lambda _: None, progress=False)
    return {"gb": round(peak(start) / 1e9, 2)}


if __name__ == "__main__":
    main()
