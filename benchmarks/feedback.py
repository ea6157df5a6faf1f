"""Measure what choices are worth: `python benchmarks/feedback.py [--trial]`.

A concept whose true target is known is taught, two seeds of each of 30 sources are chosen between
by their distance to that target, and the adapter is refined by those choices. Every row edits 64
unseen sources and makes the base's other edits again: the adapter as it was, winners as pairs,
preference training, and, without training, the best of four seeds by the embedded CLIP.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from base_quality import RESULTS, held_out_edits
from concept_quality import mean_db, open_base
from PIL import Image
from quality import edit_all, percent, score, table

from customize.adapters.apply import apply_adapters
from customize.adapters.file import read_adapter
from customize.editing import Editor
from customize.embedded.world.concepts import ConceptName, concept_pairs
from customize.embedded.world.edits import DrawnEdit
from customize.embedded.world.scenes import SIZE
from customize.families.base import EMBEDDED
from customize.recipe import load_recipe
from customize.scoring.choices.choice import Won
from customize.scoring.choices.keep import ChoiceFolder, Made
from customize.scoring.judging.clip import ClipJudge
from customize.scoring.judging.opinion import JudgedEdit
from customize.scoring.networks.encoders import open_clip
from customize.training.refining.refine import refine
from customize.training.run import run_recipe

OTHER_SEEDS = 1000
"""The second result of source i starts from this seed + i."""


@dataclass(frozen=True)
class Size:
    """How much is made; None trains as the recipe says."""

    choices: int = 30
    unseen: int = 64
    others: int = 72
    steps: int | None = None
    refining: int = 100
    seeds: int = 4


TRIAL = Size(choices=10, unseen=12, others=12, steps=60, refining=20, seeds=2)


def teach(concept: ConceptName, size: Size, folder: Path) -> Path:
    """Train the concept's recipe into a run of its own, kept from an earlier call."""
    run = folder / "start"
    if not (run / "adapter.safetensors").exists():
        changes = [f"output={run}", "preview.every=null"]
        changes += [f"train.steps={size.steps}"] if size.steps else []
        run_recipe(load_recipe(Path(f"recipes/{concept}.yaml"), changes))
    return run


def choose(run: Path, edits: Sequence[DrawnEdit], folder: Path) -> ChoiceFolder:
    """Choose between two seeds of every source, by the error that is left against the target."""
    shutil.rmtree(folder, ignore_errors=True)
    choices, editor = ChoiceFolder(folder), Editor.from_base("embedded")
    editor.load(run / "adapter.safetensors")
    sources = [Image.fromarray(edit.source_HWC) for edit in edits]
    told = [edit.instruction for edit in edits]
    sides = [editor.batch(sources, told, seed=seed) for seed in (0, OTHER_SEEDS)]
    for edit, source, first, second in zip(edits, sources, *sides, strict=True):
        left = [score(edit, np.asarray(one.image)).error_left for one in (first, second)]
        won: Won = "first" if left[0] < left[1] else "second"
        choices.add(
            source, edit.instruction, Made(first, "start"), Made(second, "start"), won, "the target"
        )
    return choices


def measure(outputs: np.ndarray, edits: Sequence[DrawnEdit]) -> dict[str, Any]:
    """Score finished edits of the concept."""
    scores = [score(edit, output) for edit, output in zip(edits, outputs, strict=True)]
    return {
        "strong": percent([one.strong for one in scores]),
        "right": percent([one.right for one in scores]),
        "error_left": float(np.median([one.error_left for one in scores])),
        "output_db": float(np.mean([one.output_db for one in scores])),
    }


def with_adapter(run: Path) -> Any:
    """Open plain diffusers' pipeline with a run's adapter on."""
    pipeline = open_base()
    apply_adapters(pipeline, [(read_adapter(run / "adapter.safetensors"), 1.0)])
    return pipeline


def best_of(run: Path, edits: Sequence[DrawnEdit], seeds: int) -> np.ndarray:
    """Make every edit from several seeds, and take the one that the embedded CLIP likes best.

    The first of them is that of every other row.
    """
    judge, editor = ClipJudge(open_clip("embedded")), Editor.from_base("embedded")
    editor.load(run / "adapter.safetensors")
    sources = [Image.fromarray(edit.source_HWC) for edit in edits]
    told = [edit.instruction for edit in edits]
    made, liked = list[np.ndarray](), list[list[float]]()
    for number in range(seeds):
        outputs = [e.image for e in editor.batch(sources, told, seed=number * OTHER_SEEDS)]
        asked = [JudgedEdit(*each) for each in zip(sources, told, outputs, strict=True)]
        made.append(np.stack([np.asarray(output) for output in outputs]))
        liked.append([opinion.overall or 0.0 for opinion in judge.opinions(asked)])
    best = np.argmax(np.array(liked), axis=0)
    return np.stack([made[chosen][place] for place, chosen in enumerate(best)])


def main() -> None:
    """Teach, choose, refine both ways, measure all, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", choices=("my_dog", "brand_style", "my_mark"), default="my_dog")
    parser.add_argument("--trial", action="store_true", help="a few minutes; proves nothing")
    parser.add_argument("--folder", type=Path, default=Path("runs/feedback"))
    parser.add_argument("--out", type=Path, default=RESULTS / "feedback.json")
    arguments = parser.parse_args()
    size, folder = TRIAL if arguments.trial else Size(), arguments.folder / arguments.concept
    settings = json.loads((EMBEDDED / "customize.json").read_text())["edit"]
    drawn = concept_pairs(arguments.concept, size.unseen + size.choices, test=True)
    edits, shown = drawn[: size.unseen], drawn[size.unseen :]
    others = held_out_edits(size.others, SIZE)
    run, base_db = teach(arguments.concept, size, folder), mean_db(open_base(), others, settings)
    choices = choose(run, shown, folder / "choices")
    rows: dict[str, dict[str, Any]] = {}

    def row(name: str, pipeline: Any, outputs: np.ndarray, seconds: float) -> None:
        lost = base_db - mean_db(pipeline, others, settings)
        rows[name] = {**measure(outputs, edits), "others_lost_db": lost, "seconds": seconds}
        print(name, json.dumps(rows[name]), flush=True)

    start = with_adapter(run)
    row("as it was", start, edit_all(start, edits, **settings), 0.0)
    row(f"best of {size.seeds}", start, best_of(run, edits, size.seeds), 0.0)
    for how in ("pairs", "preference"):
        began, output = time.monotonic(), folder / how
        refine(run, choices.path, output, how, steps=size.refining, overwrite=True, progress=False)
        took, pipeline = time.monotonic() - began, with_adapter(output)
        row(how, pipeline, edit_all(pipeline, edits, **settings), took)
    figures = {"concept": arguments.concept, "size": asdict(size), "settings": settings}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**figures, "rows": rows}, indent=2) + "\n")
    names = list(next(iter(rows.values())))
    cells = [[name, *(_written(each[key]) for key in names)] for name, each in rows.items()]
    print(table(cells, ["row", *names]))


def _written(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
