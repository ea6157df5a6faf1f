"""How near the memory estimate is to what training takes: `python benchmarks/estimator.py`.

Six configurations on a CPU, each in fresh processes: one that encodes and one that then trains two
steps; resident memory above what importing the libraries takes. Writes
`benchmarks/results/estimator.json`. On a GPU (`--device cuda`) it is CUDA's allocator at the full
size of Stable Diffusion 1.5 and of FLUX.2 klein 4B.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from geometry import SIDES, Geometry, write_base, write_pairs
from memory_probe import imported, peak

from customize.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
KV, LORA = {"method": "cross_attention_kv"}, {"method": "low_rank", "rank": 4}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "K/V, float32, batch 4": {"adapter": KV, "train": {"batch": 4, "precision": "no"}},
    "LoRA, bfloat16, batch 8": {"adapter": LORA, "train": {"batch": 8, "precision": "bf16"}},
    "LoRA, checkpointing, batch 8": {
        "adapter": LORA,
        "train": {"batch": 8, "precision": "no", "gradient_checkpointing": True},
    },
    "word and K/V, batch 2": {
        "word": "<my-thing>",
        "adapter": KV,
        "train": {"batch": 2, "precision": "no"},
    },
    "klein LoRA, batch 4": {
        "geometry": "small_klein",
        "adapter": LORA | {"rank": 16, "targets": ["all"]},
        "train": {"batch": 4, "precision": "no"},
    },
    "klein LoRA, checkpointing, bfloat16, batch 8": {
        "geometry": "small_klein",
        "adapter": LORA | {"rank": 16, "targets": ["all"]},
        "train": {"batch": 8, "precision": "bf16", "gradient_checkpointing": True},
    },
}


def main() -> None:
    """Compare all configurations, or measure one in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--work", default="/tmp/customize_estimator")
    parser.add_argument("--only", help="measure one configuration")
    parser.add_argument("--child", choices=["encode", "train", "estimate"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child(options)))
        return
    names = [name for name in CONFIGURATIONS if options.only in (None, name)]
    geometries: set[Geometry] = {_geometry(options, name) for name in names}
    for geometry in geometries:
        write_base(Path(options.work) / geometry, geometry)  # here: no child's peak has it in
    rows = [_compared(options, name) for name in names]
    if options.only:
        return
    RESULTS.mkdir(exist_ok=True)
    suffix = "" if options.device == "cpu" else "_cuda"
    (RESULTS / f"estimator{suffix}.json").write_text(json.dumps(rows, indent=1) + "\n")


def _compared(options: argparse.Namespace, name: str) -> dict[str, Any]:
    measured = {part: _run(options, name, part)["bytes"] for part in ("encode", "train")}
    expected = _run(options, name, "estimate")
    row: dict[str, Any] = {"configuration": name}
    for found in (measured, expected):
        found["peak"] = max(found["encode"], found["train"])
    for part in ("encode", "train", "peak"):
        row[part] = {
            "measured_mib": round(measured[part] / 2**20),
            "expected_mib": round(expected[part] / 2**20),
            "error": round(expected[part] / measured[part] - 1, 3),
        }
    print(json.dumps(row), flush=True)
    return row


def _run(options: argparse.Namespace, name: str, part: str) -> dict[str, float]:
    arguments = [
        "--child",
        part,
        "--only",
        name,
        "--device",
        options.device,
        "--work",
        options.work,
    ]
    command = [sys.executable, __file__, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{name}, {part}:\n{ended.stderr[-3000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def _geometry(options: argparse.Namespace, name: str) -> Geometry:
    small: Geometry = CONFIGURATIONS[name].get("geometry", "quarter")
    large: dict[Geometry, Geometry] = {"quarter": "sd15", "small_klein": "klein"}
    return small if options.device == "cpu" else large[small]


def _child(options: argparse.Namespace) -> dict[str, float]:
    start = imported()
    recipe = _recipe(options, _geometry(options, options.only))
    from customize.training.plan import plan_run

    plan = plan_run(recipe, lambda _: None)
    if options.child == "estimate":
        from customize.training.memory.estimate import estimate
        from customize.training.memory.workload import load_of

        found = estimate(load_of(plan, options.device))
        return {"encode": found.encoding_peak, "train": found.training_peak}
    from customize.training.device import open_accelerator
    from customize.training.open_session import encode_plan, open_session
    from customize.training.run_folder import RunFolder

    accelerator, folder = open_accelerator(recipe.train.precision), RunFolder(recipe.output)
    if options.child == "encode":
        shutil.rmtree(folder.cache, ignore_errors=True)
        encode_plan(plan, accelerator.device, folder, progress=False)
    else:
        list(islice(open_session(plan, accelerator, folder, progress=False).steps(), 2))
    return {"bytes": peak(start)}


def _recipe(options: argparse.Namespace, geometry: Geometry) -> Recipe:
    work, given = Path(options.work), CONFIGURATIONS[options.only]
    word = given.get("word")
    instruction = f"add {word}" if word else "make it red"
    pairs = write_pairs(work / f"pairs {instruction}", SIDES[geometry], 2, instruction)
    concept = {"name": "thing", "pairs": str(pairs), **({"word": word} if word else {})}
    return Recipe.model_validate(
        {
            "base": {"name": str(write_base(work / geometry, geometry))},
            "concepts": [concept],
            "adapter": given["adapter"],
            "train": {"learning_rate": 1e-4, **given["train"]},
            "preservation": {"instructions": ["make it night", "add snow"]},
            "output": str(work / "".join(filter(str.isalnum, options.only))),
        }
    )


if __name__ == "__main__":
    main()
