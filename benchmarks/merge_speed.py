"""Time and peak memory of merging at Stable Diffusion 1.5's size, each in a process of its own.

    python benchmarks/merge_speed.py                 # 2, 5, 10, 50 adapters; needs 4 GB of disk
    python benchmarks/merge_speed.py --shrink 8 --adapters 2 5 --output /tmp/try.json

The adapters are random changes of all keys and values (16 layers, 768-wide text, 77 MB each), every
one under constraints of its own: 5 texts of 77 rows, all independent, which is the most work there
can be. Seconds run from the first byte read to the file in place, hashes included; importing torch
and encoding the texts, which depends on the text encoder, are not in them. The files were just
written, so they are read from the page cache. Peak memory is the process's VmHWM, torch included.
Each row is the median of three runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "merge_speed.json"
BLOCKS = {
    **{f"down_blocks.{block}.attentions.{i}": block for block in range(3) for i in range(2)},
    "mid_block.attentions.0": 2,
    **{f"up_blocks.{block}.attentions.{i}": 3 - block for block in range(1, 4) for i in range(3)},
}
TEXTS, LENGTH, GENERIC = 5, 77, 46
ROUNDS = 3


def main() -> None:
    """Measure every number of adapters by every method and write a table."""
    arguments = _arguments()
    if arguments.one is not None:
        print(json.dumps(_measure(arguments.folder, arguments.method, arguments.one)))
        return
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for count in sorted(arguments.adapters):
            for index in range(count):
                path = Path(folder) / f"{index:02}.safetensors"
                if not path.exists():
                    _write(path, index, arguments.shrink)
            os.sync()  # or writing to the disk goes on beside what is measured
            for method in arguments.methods:
                runs = [_in_a_fresh_process(Path(folder), method, count) for _ in range(ROUNDS)]
                runs.sort(key=lambda run: run["seconds"])
                rows.append({**runs[ROUNDS // 2], "all_seconds": [run["seconds"] for run in runs]})
                print(_line(rows[-1]), flush=True)
    rows.sort(key=lambda row: arguments.methods.index(row["method"]))
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": _threads()},
        "shrink": arguments.shrink,
        "geometry": f"{len(BLOCKS)} layers, keys and values, {768 // arguments.shrink}-wide text",
        "constraints": f"{TEXTS} texts of {LENGTH} rows an adapter, {GENERIC} generic texts",
        "rows": rows,
        "growth": {method: _growth(rows, method) for method in arguments.methods},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def _write(path: Path, seed: int, shrink: int) -> None:
    """Write a random adapter; its changes have no structure that could be made use of."""
    import torch

    from customize.adapters.file import stream_adapter
    from customize.adapters.header import Header, Taught

    header = Header(
        family="instruct_pix2pix",
        base_name="none",
        base_fingerprint="0" * 64,
        method="cross_attention_kv",
        concepts=(Taught(f"concept_{seed}", None, None, 1, (f"instruction {seed}",)),),
    )
    generator = torch.Generator().manual_seed(seed)
    widths = {block: 320 * 2**level // shrink for block, level in BLOCKS.items()}
    tensors = (
        (
            f"denoiser.{block}.transformer_blocks.0.attn2.to_{kind}.delta",
            0.01 * torch.randn(width, 768 // shrink, generator=generator),
        )
        for block, width in widths.items()
        for kind in "kv"
    )
    stream_adapter(path, lambda: header, tensors)


def _in_a_fresh_process(folder: Path, method: str, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(count), "--method", method]
    answer = subprocess.run(
        [*command, "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return json.loads(answer.stdout.splitlines()[-1])


def _measure(folder: Path, method: str, count: int) -> dict[str, Any]:
    """Merge the first `count` adapters of `folder` once."""
    import torch
    from safetensors import safe_open

    from customize.merging.constrained.constraints import Rows
    from customize.merging.constrained.instruction_rows import InstructionTexts
    from customize.merging.merge_files import merge
    from customize.merging.methods import Constrained, Linear, Ties

    files = sorted(folder.glob("[0-9]*.safetensors"))[:count]
    assert len(files) == count
    with safe_open(files[0], framework="pt") as opened:
        width = opened.get_slice(min(opened.keys())).get_shape()[1]
    generator = torch.Generator().manual_seed(0)
    asked = [torch.randn(TEXTS * LENGTH, width, generator=generator) for _ in files]
    generic = torch.randn(GENERIC * LENGTH, width, generator=generator)
    texts = InstructionTexts(tuple(Rows(rows, rows) for rows in asked), generic)
    before, start = _status("VmHWM"), time.perf_counter()
    processor = time.process_time()
    chosen = {"constrained": Constrained(), "linear": Linear(), "ties": Ties()}[method]
    merged = merge(files, folder / f"merged_{os.getpid()}.safetensors", chosen, texts=texts)
    seconds, busy = time.perf_counter() - start, time.process_time() - processor
    merged.path.unlink()
    return {
        "method": method,
        "adapters": count,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(busy, 3),
        "peak_mb": round(_status("VmHWM"), 1),
        "peak_mb_before": round(before, 1),
        "read_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
    }


def _growth(rows: list[dict[str, Any]], method: str) -> dict[str, float]:
    """Fit a line over the numbers of adapters: what one more costs, and the share explained."""
    import numpy as np

    own = [row for row in rows if row["method"] == method]
    if len(own) < 3:
        return {}
    counts = np.array([row["adapters"] for row in own], float)
    found: dict[str, float] = {}
    for key in ("seconds", "peak_mb"):
        values = np.array([row[key] for row in own], float)
        slope, start = np.polyfit(counts, values, 1)
        explained = 1 - ((values - slope * counts - start) ** 2).sum() / values.var() / len(values)
        found |= {f"{key}_per_adapter": round(slope, 4), f"{key}_r2": round(float(explained), 4)}
    return found


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:12} {row['adapters']:3} adapters  {row['seconds']:7.2f} s  "
        f"{row['peak_mb']:7.0f} MB at most ({row['peak_mb_before']:.0f} before)"
    )


def _status(key: str) -> float:
    """Read a line of /proc/self/status, kB, as MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--adapters", type=int, nargs="+", default=[2, 5, 10, 50])
    parser.add_argument("--methods", nargs="+", default=["constrained", "linear", "ties"])
    parser.add_argument("--shrink", type=int, default=1, help="divide every width, to try it")
    parser.add_argument("--folder", type=Path, help="where the adapters lie meanwhile")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--method", default="constrained", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
