"""What training the published bases is expected to take on a GPU.

    python benchmarks/memory_table.py

Estimates of `customize check` for Stable Diffusion 1.5 and XL at their own sizes, from configs
alone: no GPU and no weights are needed. `estimator.py` measures how far such estimates are off.
Prints a Markdown table and writes results/memory_table.json.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from geometry import SIDES, Geometry, write_configs
from quality import table

from customize.adapters import CrossAttentionKV, LowRank
from customize.families.base import Base, FamilyName
from customize.training.memory.estimate import estimate
from customize.training.memory.workload import Load

RESULT = Path(__file__).parent / "results" / "memory_table.json"
FAMILIES: dict[Geometry, FamilyName] = {"sd15": "instruct_pix2pix", "sdxl": "instruct_pix2pix_xl"}
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "gradient_checkpointing": {"checkpointing": True},
    "gradient_checkpointing, nf4": {"checkpointing": True, "quantization": "nf4"},
    "gradient_checkpointing, offload": {"checkpointing": True, "offload": True},
}


def main() -> None:
    """Estimate each base with each method, batch and saving."""
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for geometry, family in FAMILIES.items():
            place, side = write_configs(Path(folder) / geometry, geometry), SIDES[geometry]
            base = Base(geometry, place, family, "0" * 64, side, 64, 8, precision="bfloat16")
            for method in (CrossAttentionKV(), LowRank(rank=8)):
                for batch in (1, 4):
                    load = Load(
                        base,
                        method,
                        size=(side, side),
                        batch=batch,
                        preserved_share=0.3,
                        mixed="bf16",
                        device="cuda",
                    )
                    row: dict[str, Any] = {
                        "base": f"{geometry}, {side} px",
                        "method": type(method).__name__,
                        "batch": batch,
                    }
                    for name, changes in CHANGES.items():
                        found = estimate(replace(load, **changes))
                        row[name or "as is"] = round(found.training_peak / 2**30, 1)
                        row["encoding"] = round(found.encoding_peak / 2**30, 1)
                    rows.append(row)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    print(table([[str(value) for value in row.values()] for row in rows], list(rows[0])))


if __name__ == "__main__":
    main()
