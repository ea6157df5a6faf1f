"""Whole trainings on a GPU: from the command to the saved adapter, and the memory they peak at.

    python benchmarks/train_whole.py             on a GPU: Stable Diffusion 1.5 and XL at their size
    python benchmarks/train_whole.py --trial     on a CPU: their toys, for three steps

`minute` is 250 steps of batch 8 through the command line, with an empty cache, previews as the
recipe's defaults have them, in seconds; bases lie on the disk. The other cases are peaks: keys and
values at batch 1 and 512 px, and a LoRA of XL at batch 1 and 1024 px with gradient checkpointing,
each beside the peak that `customize check` expects. Asked of an H200: 60 s, 5 GB, 12 GB. Of klein
the model FLOPs utilization as well (asked: 45 %). Each case has a process of its own; one that
fails is told and left out. Writes `results/train_whole.json`
after every case, unless it is a trial without `--results`.
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
from flops import klein_flops, matrix_rate
from geometry import SIDES, Geometry, write_base, write_pairs
from memory_probe import imported, peak
from train_speed import RESULTS, ROOT, device_environment, machine

STEPS, TRIAL_STEPS = 250, 3
LORA = {"method": "low_rank", "rank": 4}
KV = {"method": "cross_attention_kv"}
CASES: dict[str, dict[str, Any]] = {
    "minute, K/V": {"geometry": "sd15", "adapter": KV, "train": {"batch": 8}, "limit": 60},
    "K/V, batch 1": {"geometry": "sd15", "adapter": KV, "train": {"batch": 1}, "limit": 5},
    "XL LoRA, 1024 px": {
        "geometry": "sdxl",
        "adapter": LORA,
        "train": {"batch": 1, "gradient_checkpointing": True},
        "limit": 12,
    },
    "klein LoRA, 768 px": {
        "geometry": "klein",
        "adapter": {"method": "low_rank", "rank": 16, "targets": ["all"]},
        "train": {"batch": 1, "steps": 50, "gradient_checkpointing": True},
        "pairs": {"resolution": 768},
        "preservation": {"share": 0},
        "limit": 12,
    },
    "klein LoRA, 1024 px": {
        "geometry": "klein",
        "adapter": {"method": "low_rank", "rank": 16, "targets": ["all"]},
        "train": {"batch": 1, "steps": 50, "gradient_checkpointing": True},
        "preservation": {"share": 0},
        "limit": 16,
    },
    "minute, LoRA": {"geometry": "sd15", "adapter": LORA, "train": {"batch": 8}, "limit": 60},
}
TRIAL: dict[Geometry, Geometry] = {"sd15": "toy", "sdxl": "toy_xl", "klein": "toy_klein"}
DTYPES = {"sdxl": torch.float16, "klein": torch.bfloat16}
"""As the file is published; what is not here is float32."""


def main() -> None:
    """Measure every case and print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--work", type=Path, default=Path("/tmp/customize_train_speed"))
    parser.add_argument("--results", type=Path, help="the folder to write to")
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(_peak_of(options)))
        return
    if not options.trial and not torch.cuda.is_available():
        raise SystemExit("no GPU was found; whole trainings need one: try --trial on this machine")
    results = options.results or (None if options.trial else RESULTS)
    rows, told = list[dict[str, Any]](), machine()
    for name in options.cases:
        began = time.perf_counter()
        rows.append({"case": name, **_case(options, name), "limit": CASES[name]["limit"]})
        print(json.dumps(rows[-1]), f"(took {time.perf_counter() - began:.0f} s)", flush=True)
        if results:
            results.mkdir(parents=True, exist_ok=True)
            found = {"machine": told, "steps": STEPS, "rows": rows}
            (results / "train_whole.json").write_text(json.dumps(found, indent=1) + "\n")
    if failed := [row["case"] for row in rows if "failed" in row]:
        raise SystemExit(f"these failed, for the reasons above: {'; '.join(failed)}")


def _case(options: argparse.Namespace, name: str) -> dict[str, Any]:
    geometry = _geometry(options, name)
    try:
        write_base(_base(options, name), geometry, DTYPES.get(geometry, torch.float32))
        return _seconds(options, name) if name.startswith("minute") else _peak_gb(options, name)
    except subprocess.CalledProcessError as error:
        print(f"{name}:\n{error.stderr[-3000:]}", flush=True)
        return {"failed": error.stderr.splitlines()[-1][:200] if error.stderr else "no word"}


def _geometry(options: argparse.Namespace, name: str) -> Geometry:
    geometry: Geometry = CASES[name]["geometry"]
    return TRIAL[geometry] if options.trial else geometry


def _base(options: argparse.Namespace, name: str) -> Path:
    return options.work / _geometry(options, name)


def _recipe(options: argparse.Namespace, name: str) -> tuple[dict[str, Any], Path]:
    """Return the recipe, and its empty run folder."""
    side = SIDES[_geometry(options, name)]
    output = options.work / f"run {name}"
    shutil.rmtree(output, ignore_errors=True)
    steps = TRIAL_STEPS if options.trial else STEPS
    pairs = write_pairs(options.work / f"pairs {side}", side)
    return {
        "base": {"name": str(_base(options, name))},
        "concepts": [{"name": "thing", "pairs": str(pairs)}],
        "adapter": CASES[name]["adapter"],
        "train": {"learning_rate": 1e-4, "steps": steps, **CASES[name]["train"]},
        **{k: CASES[name][k] for k in ("pairs", "preservation") if k in CASES[name]},
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
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=device_environment("cpu" if options.trial else "cuda"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _peak_of(options: argparse.Namespace) -> dict[str, float]:
    """Encode and train a few steps in this process; previews are an edit's own matter."""
    start = imported()
    from customize.recipe import Recipe
    from customize.training.memory.estimate import estimate
    from customize.training.memory.workload import load_of
    from customize.training.plan import plan_run
    from customize.training.run import run_recipe

    values, _ = _recipe(options, options.only)
    values["train"]["steps"] = CASES[options.only]["train"].get("steps", TRIAL_STEPS)
    if options.trial:
        values["train"]["steps"] = TRIAL_STEPS
        values.pop("pairs", None)
    values["preview"] = {"every": None}
    recipe = Recipe.model_validate(values)
    result = run_recipe(recipe, log=lambda _: None, progress=False)
    measured = peak(start)
    device = "cpu" if options.trial else "cuda"
    expected = estimate(load_of(plan_run(recipe, lambda _: None), device)).peak
    seconds = result.seconds / result.steps
    found = {
        "gb": round(measured / 1e9, 3),
        "expected_gb": round(expected / 1e9, 3),
        "error": round(expected / measured - 1, 3),
        "seconds_a_step": round(seconds, 3),
    }
    geometry = _geometry(options, options.only)
    if "klein" in geometry:
        side = values.get("pairs", {}).get("resolution", SIDES[geometry])
        flops = values["train"]["batch"] * klein_flops(geometry, side)
        rate = matrix_rate("cpu", torch.float32, 256)
        if not options.trial:
            rate = matrix_rate("cuda", torch.bfloat16, 8192)
        found["utilization"] = round(flops / seconds / rate, 3)
    return found


if __name__ == "__main__":
    main()
