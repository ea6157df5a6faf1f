"""What training the published bases is expected to take on a GPU.

    python benchmarks/memory_table.py

Estimates of `customize check` for Stable Diffusion 1.5, XL and FLUX.2 klein at their own sizes,
from configs alone: no GPU and no weights are needed. `estimator.py` measures how far they are off.
Prints a Markdown table and writes results/memory_table.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from geometry import SIDES, Geometry, write_configs
from quality import table

from customize.adapters import CrossAttentionKV, LowRank, Method
from customize.families.base import Base, FamilyName
from customize.training.memory.estimate import estimate
from customize.training.memory.workload import Load

RESULT = Path(__file__).parent / "results" / "memory_table.json"
FAMILIES: dict[Geometry, FamilyName] = {
    "sd15": "instruct_pix2pix",
    "sdxl": "instruct_pix2pix_xl",
    "klein": "flux2_klein",
}
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "gradient_checkpointing": {"checkpointing": True},
    "gradient_checkpointing, nf4": {"checkpointing": True, "quantization": "nf4"},
    "gradient_checkpointing, offload": {"checkpointing": True, "offload": True},
}


def main() -> None:
    """Estimate each base with each method, batch and saving."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", choices=list(FAMILIES), help="print one base's rows, write none")
    only = options.parse_args().only
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for geometry in [only] if only else FAMILIES:
            place = write_configs(Path(folder) / geometry, geometry)
            rows += [_row(geometry, load) for load in _loads(geometry, place)]
    if not only:
        RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    print(table([[str(value) for value in row.values()] for row in rows], list(rows[0])))


def _loads(geometry: Geometry, place: Path) -> Iterator[Load]:
    """Yield what the base is asked: as its recipes have it, at batches that cards hold."""
    klein = geometry == "klein"
    methods: tuple[Method, ...] = (CrossAttentionKV(), LowRank(rank=8))
    for side in (768, 1024) if klein else (SIDES[geometry],):
        base = Base(
            geometry, place, FAMILIES[geometry], "0" * 64, side, 64, 8, precision="bfloat16"
        )
        for method in (LowRank(rank=16),) if klein else methods:
            for batch in (1, 2) if klein else (1, 4):
                yield Load(
                    base,
                    method,
                    size=(side, side),
                    batch=batch,
                    preserved_share=0.0 if klein else 0.3,
                    mixed="bf16",
                    device="cuda",
                )


def _row(geometry: Geometry, load: Load) -> dict[str, Any]:
    row: dict[str, Any] = {
        "base": f"{geometry}, {load.size[0]} px",
        "method": type(load.method).__name__,
        "batch": load.batch,
    }
    for name, changes in CHANGES.items():
        found = estimate(replace(load, **changes))
        row[name or "as is"] = round(found.training_peak / 2**30, 1)
        row["encoding"] = round(found.encoding_peak / 2**30, 1)
    return row


if __name__ == "__main__":
    main()
