"""Measure what choices are worth: `python benchmarks/feedback.py [--trial]`.

A concept whose true target is known is taught, two seeds of each of 30 sources are chosen between
by their distance to that target, and the adapter is refined by those choices. Every row edits 64
unseen sources and makes the base's other edits again: the adapter as it was, winners as pairs,
preference training, and, without training, the best of four seeds by the embedded CLIP (whose other
edits are those of the adapter as it was). The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from base_quality import RESULTS, held_out_edits
from concept_quality import mean_db, open_base
from PIL import Image
from quality import edit_all, own_way, percent, score, table

from customize.adapters.apply import apply_adapters
from customize.adapters.file import read_adapter
from customize.editing import Editor
from customize.embedded.world.concepts import ConceptName, concept_pairs
from customize.embedded.world.edits import DrawnEdit
from customize.embedded.world.scenes import SIZE
from customize.files import write_text
from customize.recipe import load_recipe
from customize.scoring.choices.choice import Won
from customize.scoring.choices.keep import ChoiceFolder, Made
from customize.scoring.judging.clip import ClipJudge
from customize.scoring.judging.opinion import JudgedEdit
from customize.scoring.networks.encoders import open_clip
from customize.training.refining.refine import How, refine
from customize.training.run import run_recipe
from customize.training.run_folder import RunFolder

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


@dataclass
class Rows:
    """What was measured so far, kept on disk after every row for just these settings."""

    path: Path
    about: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def taken_up(self) -> Rows:
        """Read what an earlier call of the same settings measured."""
        if self.path.exists():
            kept = json.loads(self.path.read_text("utf-8"))
            rows = kept.pop("rows")
            self.rows = rows if kept == self.about else {}
        return self

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Keep a row, and print it."""
        self.rows[name] = row
        write_text(self.path, json.dumps({**self.about, "rows": self.rows}, indent=2) + "\n")
        print(name, json.dumps(row), flush=True)


def teach(concept: ConceptName, size: Size, run: Path) -> None:
    """Train the concept's recipe; a run that was stopped goes on, a finished one stays."""
    if not RunFolder(run).adapter.exists():
        changes = [f"output={run}", "preview.every=null"]
        changes += [f"train.steps={size.steps}"] if size.steps else []
        run_recipe(load_recipe(Path(f"recipes/{concept}.yaml"), changes))


def choose(run: Path, edits: Sequence[DrawnEdit], folder: Path) -> ChoiceFolder:
    """Choose between two seeds of every source, by the error that is left against the target."""
    choices = ChoiceFolder(folder)
    if len(choices.read()) == len(edits):
        return choices
    shutil.rmtree(folder, ignore_errors=True)
    editor = Editor.from_base("embedded").load(RunFolder(run).adapter)
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
    apply_adapters(pipeline, [(read_adapter(RunFolder(run).adapter), 1.0)])
    return pipeline


def best_of(pipeline: Any, edits: Sequence[DrawnEdit], seeds: int, settings: Any) -> np.ndarray:
    """Make every edit from several seeds, and take the one that the embedded CLIP likes best.

    The first of them is that of every other row.
    """
    judge = ClipJudge(open_clip("embedded"))
    made, liked = list[np.ndarray](), list[list[float]]()
    for number in range(seeds):
        made.append(edit_all(pipeline, edits, number * OTHER_SEEDS, **settings))
        asked = [
            JudgedEdit(Image.fromarray(e.source_HWC), e.instruction, Image.fromarray(output))
            for e, output in zip(edits, made[-1], strict=True)
        ]
        liked.append([opinion.overall or 0.0 for opinion in judge.opinions(asked)])
    best = np.argmax(np.array(liked), axis=0)
    return np.stack([made[chosen][place] for place, chosen in enumerate(best)])


def measure_all(
    size: Size, folder: Path, rows: Rows, shown: Sequence[DrawnEdit], edits: Any
) -> None:
    """Fill the rows that are not there yet; everything between is kept in `folder`."""
    settings, run = rows.about["settings"], folder / "start"
    others = held_out_edits(size.others, SIZE)
    if "base alone" not in rows.rows:
        rows.add("base alone", {"others_db": mean_db(open_base(), others, settings)})
    if "as it was" not in rows.rows:
        pipeline = with_adapter(run)
        row = measure(edit_all(pipeline, edits, **settings), edits)
        rows.add("as it was", {**row, "others_db": mean_db(pipeline, others, settings)})
    if (best := f"best of {size.seeds}") not in rows.rows:
        row = measure(best_of(with_adapter(run), edits, size.seeds, settings), edits)
        rows.add(best, {**row, "others_db": rows.rows["as it was"]["others_db"]})
    ways: tuple[How, How] = "pairs", "preference"
    for how in ways:
        if how in rows.rows:
            continue
        made = RunFolder(folder / how).adapter
        if not made.exists():
            choices = choose(run, shown, folder / "choices")
            refine(run, choices.path, made.parent, how, steps=size.refining, progress=False)
        pipeline, facts = with_adapter(made.parent), read_adapter(made).header.training
        row = measure(edit_all(pipeline, edits, **settings), edits)
        row |= {"others_db": mean_db(pipeline, others, settings)}
        rows.add(how, {**row, "steps": facts["steps"], "seconds": facts["seconds"]})


def main() -> None:
    """Teach, choose, refine both ways, measure all, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concept", choices=("my_dog", "brand_style", "my_mark"), default="my_dog")
    parser.add_argument("--trial", action="store_true", help="a few minutes; proves nothing")
    parser.add_argument("--folder", type=Path, default=Path("runs/feedback"))
    parser.add_argument(
        "--out", type=Path, help="table (results/feedback.json, of a trial: FOLDER)"
    )
    arguments = parser.parse_args()
    size, concept = TRIAL if arguments.trial else Size(), arguments.concept
    folder = arguments.folder / (f"{concept}_trial" if arguments.trial else concept)
    usual = folder / "rows.json" if arguments.trial else RESULTS / "feedback.json"
    drawn = concept_pairs(concept, size.unseen + size.choices, test=True)
    teach(concept, size, folder / "start")
    about = {
        "concept": concept,
        "size": asdict(size),
        "settings": own_way(detail="scaled"),
        "start": hashlib.sha256(RunFolder(folder / "start").adapter.read_bytes()).hexdigest(),
    }
    rows = Rows(arguments.out or usual, about).taken_up()
    measure_all(size, folder, rows, drawn[size.unseen :], drawn[: size.unseen])
    lost = {
        name: rows.rows["base alone"]["others_db"] - row["others_db"]
        for name, row in rows.rows.items()
    }
    names = ["strong", "right", "error_left", "output_db", "seconds"]
    cells = [
        [name, *(_written(row.get(key, "")) for key in names), _written(lost[name])]
        for name, row in rows.rows.items()
    ]
    print(table(cells, ["row", *names, "others lost dB"]))


def _written(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
