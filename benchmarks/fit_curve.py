"""Show quality over samples while the base is fitted: `python benchmarks/fit_curve.py RUN`.

RUN is the output folder of `fit-base`. Each snapshot in RUN/state that has no line in
RUN/curve.jsonl yet gets one: a small fixed set of unseen edits, by the number of things there are
to choose from. Edits are drawn from another seed than those that are reported.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base_quality import mean_unchanged_db, of_things, things_of
from diffusers import StableDiffusionInstructPix2PixPipeline
from quality import edit_all, own_way, score, table
from safetensors.torch import load_file

from customize.embedded.fitting.editor import Learners
from customize.embedded.folder import Parts, read_parts
from customize.embedded.models import new_scheduler, size_of
from customize.embedded.world.edits import DrawnEdit, EditKind, random_edit

SEED = 505
PLAN: dict[EditKind, tuple[int, ...]] = {
    "recolor": (1, 2, 3),
    "remove": (1, 2, 3),
    "replace": (1, 2, 3),
    "add": (0,),
    "background": (0,),
    "photo look": (0,),
    "keep": (0,),
}


def trial_edits(each: int, size: int) -> list[DrawnEdit]:
    """Draw `each` unseen edits of every kind and number of things, `size` pixels a side."""
    edits = []
    for kind, counts in PLAN.items():
        for things in counts:
            drawn = (
                random_edit((SEED, things, number), test=True, kind=kind, size=size)
                for number in range(100 * each)
            )
            fitting = (edit for edit in drawn if things_of(edit) == things)
            edits += [next(fitting) for _ in range(each)]
    return edits


def pipeline_of(parts: Parts, snapshot: Path) -> Any:
    """Open the base with the averaged weights of a snapshot."""
    learners = Learners(parts.unet, parts.text_encoder)
    average = load_file(snapshot)["ema"].float()
    torch.nn.utils.vector_to_parameters(average, learners.parameters())
    learners.finish()
    kind: Any = StableDiffusionInstructPix2PixPipeline  # its types want a safety checker
    pipeline = kind(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    """Measure the snapshots that are new and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="the base the run started from")
    parser.add_argument("--each", type=int, default=24)
    arguments = parser.parse_args()
    curve = arguments.run / "curve.jsonl"
    lines = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
    snapshots = {
        int(p.stem.split("-")[1]): p for p in arguments.run.glob("state/editor-*.safetensors")
    }
    edits = trial_edits(arguments.each, size_of(read_parts(arguments.base).vae))
    for samples in sorted(set(snapshots) - {line["samples"] for line in lines}):
        pipeline = pipeline_of(read_parts(arguments.base), snapshots[samples])
        outputs = edit_all(pipeline, edits, **own_way(detail="scaled"))
        rows = [(e, score(e, o)) for e, o in zip(edits, outputs, strict=True)]
        line = {
            "samples": samples,
            "output_db": float(np.mean([s.output_db for _, s in rows])),
            "unchanged_db": mean_unchanged_db([s for _, s in rows]),
            "right": {
                kind: float(np.mean([s.right for e, s in rows if e.kind == kind])) for kind in PLAN
            },
            "things": of_things(rows),
        }
        lines.append(line)
        with curve.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(curve_table(lines))


def curve_table(lines: list[dict[str, Any]]) -> str:
    """Lay the curve out: per kind and number of things the shares `named` and `right`."""
    titles = ["samples", "dB", "unchanged dB"]
    titles += [
        f"{kind} {n}: named, right" for kind in ("recolor", "remove", "replace") for n in "123"
    ]
    rows = []
    for line in sorted(lines, key=lambda line: line["samples"]):
        cells = [line["samples"], f"{line['output_db']:.1f}", f"{line['unchanged_db']:.1f}"]
        for kind in ("recolor", "remove", "replace"):
            for things in (1, 2, 3):
                chosen = [c for c in line["things"] if (c["kind"], c["things"]) == (kind, things)]
                count = sum(c["edits"] for c in chosen)
                named, right = (sum(c[n] for c in chosen) / count for n in ("named", "right"))
                cells.append(f"{named:.0%}, {right:.0%}")
        rows.append(cells)
    return table(rows, titles)


if __name__ == "__main__":
    main()
