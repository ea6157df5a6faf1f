"""Measure taught concepts on unseen sources: `python benchmarks/concept_quality.py [ROW ...]`.

Each row trains one recipe on four pairs and edits 64 unseen sources whose true targets are known,
then makes the base's other edits again. Rows already in `benchmarks/results/concept_quality.json`
are kept unless named or `--again` is given.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base_quality import RESULTS, held_out_edits
from diffusers import StableDiffusionInstructPix2PixPipeline
from PIL import Image
from plain_lora import train_plain_lora
from quality import Score, color_where, edit_all, own_way, percent, score, table

from customize.adapters.apply import apply_adapters
from customize.adapters.file import read_adapter
from customize.drawing.contact_sheet import contact_sheet
from customize.embedded.world.colors import nearest_name
from customize.embedded.world.concepts import ConceptName, concept_pairs
from customize.embedded.world.edits import DrawnEdit
from customize.embedded.world.scenes import SIZE
from customize.embedded.world.things import COLLAR
from customize.families.base import EMBEDDED
from customize.recipe import load_recipe
from customize.training.run import run_recipe

UNSEEN, OTHERS = 64, 72
RUNS = Path("runs/concept_quality")
KV_RATES = {"my_dog": 2e-3, "brand_style": 6e-4, "my_mark": 2e-3}
"""The rates at which keys and values learn on the embedded base."""
LORA = "adapter={{method: low_rank, rank: 8, targets: [{}]}}"
ATTENTION = (LORA.format("attention"), "train.learning_rate=1e-3")
EVERYWHERE = (
    LORA.format("attention, convolutions, feed_forward"),
    "train.learning_rate=1e-3",
)
UNPRESERVED = ("preservation.share=0",)


@dataclass(frozen=True)
class Row:
    """One line of the table: a concept and changes to its recipe; None is the plain loop."""

    concept: ConceptName
    label: str
    overrides: tuple[str, ...] | None

    @property
    def output(self) -> Path:
        """The run's folder."""
        name = self.label.replace(" ", "_").replace("/", "").replace(",", "")
        return RUNS / self.concept / name


def by_keys_and_values(concept: str) -> tuple[str, ...]:
    """Change a concept's recipe to keys and values alone."""
    return ("adapter={method: cross_attention_kv}", f"train.learning_rate={KV_RATES[concept]}")


ROWS = tuple(
    Row(concept, label, overrides)
    for concept in ("my_dog", "brand_style")
    for label, overrides in (
        ("as in the recipe", ()),
        ("the recipe without preservation", UNPRESERVED),
        ("K/V", by_keys_and_values(concept)),
        ("LoRA 8, attention", ATTENTION),
        ("LoRA 8, attention, convolutions, feed-forward", EVERYWHERE),
        ("plain LoRA loop, the recipe's seconds", None),
    )
)


def open_base() -> Any:
    """Open the embedded base as plain diffusers does, in float32."""
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(EMBEDDED, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def train(row: Row, seconds: float) -> tuple[Any, float]:
    """Train a row; return a pipeline with the result, and the seconds it took."""
    pipeline = open_base()
    start = time.monotonic()
    if row.overrides is None:
        # the plain loop teaches no word: the tokenizer breaks <my-dog> into pieces it knows
        train_plain_lora(pipeline, concept_pairs(row.concept, 4), seconds)
        return pipeline, time.monotonic() - start
    changes = [*row.overrides, f"output={row.output}", "preview.every=null"]
    run_recipe(load_recipe(Path(f"recipes/{row.concept}.yaml"), changes), overwrite=True)
    took = time.monotonic() - start
    apply_adapters(pipeline, [(read_adapter(row.output / "adapter.safetensors"), 1.0)])
    return pipeline, took


def measure(row: Row, seconds: float, settings: dict[str, Any], base_db: float) -> dict[str, Any]:
    """Train a row and score it on the concept and on the base's other edits."""
    pipeline, took = train(row, seconds)
    edits, others = concept_pairs(row.concept, UNSEEN, test=True), held_out_edits(OTHERS, SIZE)
    outputs = edit_all(pipeline, edits, **settings)
    scores = [score(e, o) for e, o in zip(edits, outputs, strict=True)]
    save_sheet(row, edits, outputs)
    return {
        "concept": row.concept,
        "method": row.label,
        "seconds": took,
        **shares(edits, outputs, scores),
        "output_db": float(np.mean([s.output_db for s in scores])),
        "copy_db": float(np.mean([s.copy_db for s in scores])),
        "others_lost_db": base_db - mean_db(pipeline, others, settings),
    }


def shares(
    edits: Sequence[DrawnEdit], outputs: np.ndarray, scores: Sequence[Score]
) -> dict[str, str]:
    """Say in how many edits all is right, much is, the named thing changed, and the collar is red.

    Each is a share with its 95 % interval, and apart for sources with one and several things.
    """
    rows = list(zip(edits, outputs, scores, strict=True))
    several = [row for row in rows if row[0].change and len(row[0].change.before.things) > 1]
    one = [row for row in rows if row[0].change and len(row[0].change.before.things) == 1]
    collars = [color_where(edit, output, COLLAR) for edit, output, _ in rows]
    return {
        "strong": percent([s.strong for s in scores]),
        "right": percent([s.right for s in scores]),
        "right_of_one": percent([s.right for _, _, s in one]),
        "right_of_several": percent([s.right for _, _, s in several]),
        "named": percent([s.verdict == "named" for _, _, s in several]),
        "collar_red": percent([nearest_name(c) == "red" for c in collars if c is not None]),
    }


def mean_db(pipeline: Any, edits: Sequence[DrawnEdit], settings: dict[str, Any]) -> float:
    """Average the PSNR of a pipeline's edits against their targets."""
    outputs = edit_all(pipeline, edits, **settings)
    return float(np.mean([score(e, o).output_db for e, o in zip(edits, outputs, strict=True)]))


def save_sheet(row: Row, edits: Sequence[DrawnEdit], outputs: np.ndarray) -> None:
    """Show the first eight unseen sources of a row."""
    rows = [
        [
            Image.fromarray(e.source_HWC),
            e.instruction,
            Image.fromarray(o),
            Image.fromarray(e.target_HWC),
        ]
        for e, o in zip(edits[:8], outputs, strict=False)
    ]
    row.output.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(rows, ["source", "instruction", "output", "target"], cell=128)
    sheet.save(row.output.with_suffix(".png"))


def main() -> None:
    """Measure what is missing, save after every row, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, help="numbers of rows, from 0; default all")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--out", type=Path, default=RESULTS / "concept_quality.json")
    arguments = parser.parse_args()
    settings = own_way()
    base_db = mean_db(open_base(), held_out_edits(OTHERS, SIZE), settings)
    done = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else {}
    for number, row in enumerate(ROWS):
        key = f"{row.concept}: {row.label}"
        wanted = number in arguments.rows if arguments.rows else True
        if wanted and (arguments.again or arguments.rows or key not in done):
            recipe_seconds = done.get(f"{row.concept}: as in the recipe", {}).get("seconds", 90.0)
            done[key] = measure(row, recipe_seconds, settings, base_db)
            figures = {"settings": settings, "base_others_db": base_db, "rows": done}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
            print(json.dumps(done[key]), flush=True)
    names = list(next(iter(done.values())))
    show: Callable[[Any], str] = lambda v: f"{v:.2f}" if isinstance(v, float) else str(v)  # noqa: E731
    print(table([[show(row[name]) for name in names] for row in done.values()], names))


if __name__ == "__main__":
    main()
