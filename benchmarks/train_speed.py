"""How fast and small training is, against training as existing scripts do it.

    python benchmarks/train_speed.py                  on a CPU, the quarter-width twin, 256 px
    python benchmarks/train_speed.py --device cuda    on a GPU, Stable Diffusion 1.5's size, 512 px

Same model, pairs, rank, batch and resolution; all runs in turn and the whole round repeated, for
machines whose speed drifts. On a CPU every run has a fresh process; on a GPU, whose allocator can
forget a peak, they share one, and another goes on where one breaks. Prints a table and writes
`benchmarks/results/train_speed.json` (`train_speed_cuda.json` on a GPU) after every run. "default"
is each side at its own default settings: the script's is float32 without preservation, ours `auto`
precision with a preserved share of 0.3. The others set both to one precision; "same_work" also
leaves the preservation out, which the script does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from flops import matrix_rate, unet_flops
from geometry import SIDES, write_base, write_pairs
from memory_probe import imported, peak

from customize.training.device import mixed_precision

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
METHODS = ("cross_attention_kv", "low_rank")
SIDES_COMPARED = ("plain", "ours", "same_work")
MOST_FAILED = 2
"""Broken processes after which nothing more is tried: a GPU's minutes are few."""
Combination = tuple[str, str, str]
"""Who trains, by which method, in which precision."""
RANK = 4
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes")


def main() -> None:
    """Measure, print, write."""
    options = _options()
    if options.child:
        for combination in json.loads(options.child):
            print(json.dumps(_measured(options, *combination)), flush=True)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: no GPU was found; leave it out to measure on the CPU")
    write_base(Path(options.work) / options.geometry, options.geometry)  # so no child's peak has it
    combinations = [
        (who, method, precision)
        for precision in (("no", "bf16") if options.device == "cpu" else ("bf16", "no"))
        for method in METHODS
        for who in SIDES_COMPARED
    ]
    rounds, told, summary = list[dict[str, Any]](), machine(), {}
    for run in _all_runs(options, combinations * options.rounds):
        rounds.append(run)
        summary = _write(options, told, _pooled(rounds, options.batch))
    print(json.dumps(summary, indent=1))


def _write(
    options: argparse.Namespace, told: dict[str, Any], runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write what is known by now; return the ratios."""
    summary = {method: _ratios(runs, method) for method in METHODS}
    found = {"machine": told, "settings": vars(options), "runs": runs, "summary": summary}
    options.results.mkdir(parents=True, exist_ok=True)
    suffix = "" if options.device == "cpu" else f"_{options.device}"
    path = options.results / f"train_speed{suffix}.json"
    path.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return summary


def _all_runs(
    options: argparse.Namespace, combinations: list[Combination]
) -> Iterator[dict[str, Any]]:
    """Measure combinations in processes of their own; the one at which a process broke is left out.

    Raises SystemExit in the end, if there was one.
    """
    left, failed = list(combinations), list[str]()
    while left and len(failed) < MOST_FAILED:
        together = left[:1] if options.device == "cpu" and not options.one_process else left
        before = len(left)
        for run in _child(options, together):
            left = left[1:]
            print(
                f"{run['who']:9} {run['method']:18} {run['precision']:4} "
                f"{run['samples_a_second']:7.2f} samples/s {run['peak_bytes'] / 2**20:7.0f} MiB  "
                f"utilization {run['utilization']:.0%}",
                flush=True,
            )
            yield run
        if before - len(left) < len(together):
            failed.append(" ".join(left[0]))
            left = left[1:]
    if failed:
        tried = "" if not left else f"; {len(left)} more were not tried"
        raise SystemExit(f"these failed, for the reasons above: {'; '.join(failed)}{tried}")


def _child(
    options: argparse.Namespace, combinations: list[Combination]
) -> Iterator[dict[str, Any]]:
    """Measure combinations in one process; ends early when it breaks."""
    unset = {k: v for k, v in vars(options).items() if k not in ("child", "one_process")}
    arguments = [part for key, value in unset.items() for part in (f"--{key}", str(value))]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), "--child", json.dumps(combinations), *arguments],
        cwd=ROOT,
        env=device_environment(options.device),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
    process.wait()


def _pooled(rounds: list[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """Join the rounds of each combination: median speed of all steps, median of the peaks."""
    joined = dict[tuple[str, ...], list[dict[str, Any]]]()
    for run in rounds:
        joined.setdefault((run["who"], run["method"], run["precision"]), []).append(run)
    pooled = list[dict[str, Any]]()
    for same in joined.values():
        seconds = [second for run in same for second in run["step_seconds"]]
        pooled.append(
            same[0]
            | {
                "step_seconds": seconds,
                "samples_a_second": batch / median(seconds),
                "first_step_seconds": median(run["first_step_seconds"] for run in same),
                "peak_bytes": median(run["peak_bytes"] for run in same),
                "utilization": median(run["utilization"] for run in same),
            }
        )
    return pooled


def _ratios(runs: list[dict[str, Any]], method: str) -> dict[str, float]:
    """Compare speed and memory at the defaults, at equal precision and for the same work, as far as
    both sides are measured.
    """
    of = {(run["who"], run["precision"]): run for run in runs if run["method"] == method}
    compared = {
        "default": ("ours", mixed_precision("auto"), "no"),
        "float32": ("ours", "no", "no"),
        "bfloat16": ("ours", "bf16", "bf16"),
        "float32_same_work": ("same_work", "no", "no"),
        "bfloat16_same_work": ("same_work", "bf16", "bf16"),
    }
    return {
        f"{what}_{name}": round(of[who, ours][key] / of["plain", plain][key], 2)
        for what, key in (("speed", "samples_a_second"), ("memory", "peak_bytes"))
        for name, (who, ours, plain) in compared.items()
        if (who, ours) in of and ("plain", plain) in of
    }


def _measured(options: argparse.Namespace, who: str, method: str, precision: str) -> dict[str, Any]:
    """Measure one combination in this process."""
    options = argparse.Namespace(**vars(options), who=who, method=method, precision=precision)
    start = imported()
    work = Path(options.work)
    base = work / options.geometry
    pairs = write_pairs(work / "pairs", SIDES[options.geometry])
    steps = (_plain if who == "plain" else _ours)(options, base, pairs)
    began = time.perf_counter()
    next(steps)
    ready = time.perf_counter()
    seconds = [_timed(steps) for _ in range(options.steps)]
    speed = options.batch / median(seconds)
    flops = unet_flops(options.geometry)
    kind = torch.float32 if precision == "no" else torch.bfloat16
    size = 256 if options.geometry == "toy" else 8192 if options.device == "cuda" else 1536
    return {
        "who": who,
        "method": method,
        "precision": precision,
        "samples_a_second": speed,
        "step_seconds": seconds,
        "first_step_seconds": ready - began,
        "peak_bytes": peak(start),
        "model_flops_a_sample": flops,
        "utilization": speed * flops / matrix_rate(options.device, kind, size),
    }


def _timed(steps: Iterator[Any]) -> float:
    began = time.perf_counter()
    next(steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _ours(options: argparse.Namespace, base: Path, pairs: Path) -> Iterator[Any]:
    from customize.recipe import Recipe
    from customize.training.device import open_accelerator
    from customize.training.open_session import open_session
    from customize.training.plan import plan_run
    from customize.training.run_folder import RunFolder

    output = Path(options.work) / "run"
    shutil.rmtree(output, ignore_errors=True)
    # A GPU's `auto` is bfloat16 whatever the training's precision: equal means equal here.
    base_precision = "float32" if options.precision == "no" else "auto"
    adapter: dict[str, Any] = {"method": options.method}
    if options.method == "low_rank":
        adapter["rank"] = RANK
    recipe = Recipe.model_validate(
        {
            "base": {"name": str(base), "precision": base_precision},
            "concepts": [{"name": "speed", "pairs": str(pairs)}],
            "adapter": adapter,
            "train": {
                "batch": options.batch,
                "learning_rate": 1e-4,
                "precision": options.precision,
            },
            "preservation": {"share": 0.0} if options.who == "same_work" else {},
            "output": str(output),
        }
    )
    plan = plan_run(recipe, lambda _: None)
    accelerator = open_accelerator(recipe.train.precision)
    session = open_session(plan, accelerator, RunFolder(recipe.output), progress=False)
    return session.steps()


def _plain(options: argparse.Namespace, base: Path, pairs: Path) -> Iterator[float]:
    from plain_loop import plain_steps

    from customize.families import open_pipeline
    from customize.families.base import resolve_base
    from customize.pairs.find import find_pairs

    return plain_steps(
        open_pipeline(resolve_base(str(base)), device="cpu", dtype=torch.float32),
        list(find_pairs(pairs).pairs),
        options.method,
        rank=RANK,
        batch=options.batch,
        side=int(json.loads((base / "vae" / "config.json").read_text())["sample_size"]),
        precision=options.precision,
    )


def device_environment(device: str) -> dict[str, str]:
    """Return the environment of a process that is to run on `device`."""
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}


def machine() -> dict[str, Any]:
    """Name processor, GPU, date and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = {"processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu}
    facts["when"] = time.strftime("%Y-%m-%d %H:%M")
    return {**facts, "python": platform.python_version(), **{n: version(n) for n in LIBRARIES}}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--geometry", choices=["quarter", "sd15", "toy"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, help="timed steps after a first one")
    parser.add_argument("--rounds", type=int, default=3, help="times everything is measured")
    parser.add_argument("--work", default="/tmp/customize_train_speed", help="where bases are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--one_process", action="store_true", help="as on a GPU: to try it out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.geometry = options.geometry or ("quarter" if options.device == "cpu" else "sd15")
    options.steps = options.steps or (7 if options.device == "cpu" else 40)
    return options


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
