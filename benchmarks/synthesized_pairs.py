"""Concepts taught by pairs that were made: `python benchmarks/synthesized_pairs.py [ROW ...]`.

`backward`: brand_style from five finished pictures alone, their sources made by the base; beside it
the five true pairs. `widened`: my_dog from its four pairs and 36 cut and mirrored from them; beside
it stands `my_dog: as in the recipe` of concept_quality.py. The same 64 unseen sources and other
edits as there. Writes `benchmarks/results/synthesized_pairs.json` after every row.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from base_quality import RESULTS, held_out_edits
from concept_quality import OTHERS, Row, mean_db, measure, open_base
from PIL import Image
from quality import own_way, table

from customize.editing import Editor
from customize.embedded.world.concepts import ConceptName, concept_pairs
from customize.embedded.world.scenes import SIZE
from customize.pairs.find import find_pairs
from customize.scoring.networks.encoders import open_clip
from customize.synthesis.backward.make import BackwardOptions, make_backward
from customize.synthesis.widening.make import WidenOptions, widen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from make_pairs import write_pairs

FOLDER = Path("runs/synthesized_pairs")
FINISHED, WIDENED = 5, 40


def true_pairs(concept: ConceptName, count: int) -> Path:
    """Write drawn pairs."""
    folder = FOLDER / f"{concept} {count}"
    write_pairs(folder, concept_pairs(concept, count))
    return folder


def backward_pairs() -> Path:
    """Write finished pictures, and make sources for them."""
    finished = FOLDER / "finished"
    finished.mkdir(parents=True, exist_ok=True)
    edits = concept_pairs("brand_style", FINISHED)
    for number, edit in enumerate(edits):
        Image.fromarray(edit.target_HWC).save(finished / f"{number}.png")
    made = make_backward(
        Editor.from_base("embedded"),
        open_clip("embedded"),
        finished,
        FOLDER / "backward",
        BackwardOptions(instruction=edits[0].instruction, recolored=3),
    )
    print(f"{made.kept} pairs of {made.pictures} pictures; none for {made.without or 'none'}")
    return made.pairs


def widened_pairs() -> Path:
    """Widen four pairs, and put both into one table."""
    real = true_pairs("my_dog", 4)
    pairs = find_pairs(real).pairs
    made = widen(pairs, FOLDER / "widened", WidenOptions(count=WIDENED - len(pairs))).pairs
    together = FOLDER / "together"
    shutil.rmtree(together, ignore_errors=True)
    lines = list[str]()
    for table_file in (real / "pairs.jsonl", made):
        name = table_file.parent.name
        shutil.copytree(table_file.parent, together / name)
        for line in table_file.read_text().splitlines():
            row = json.loads(line)
            places = {key: f"{name}/{row[key]}" for key in ("source", "edited")}
            lines.append(json.dumps(row | places) + "\n")
    (together / "all.jsonl").write_text("".join(lines))
    return together / "all.jsonl"


def row_of(concept: ConceptName, label: str, pairs: Path, *changes: str) -> Row:
    """Return the concept's recipe with other pairs, and `changes` to it."""
    return Row(concept, label, (f"concepts.0.pairs={pairs}", *changes))


HALF_THE_RATE = "train.learning_rate=1e-3"
"""Made sources are all alike in what they lack, and are learned by heart at the recipe's rate."""


ROWS = {
    "backward": lambda: row_of(
        "brand_style", "made backward of 5 finished, half the rate", backward_pairs(), HALF_THE_RATE
    ),
    "true": lambda: row_of("brand_style", "5 true pairs", true_pairs("brand_style", FINISHED)),
    "widened": lambda: row_of("my_dog", "4 pairs widened to 40", widened_pairs()),
}


def main() -> None:
    """Make pairs, teach them, measure, save after every row, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=", ".join(ROWS))
    names, place = parser.parse_args().rows, RESULTS / "synthesized_pairs.json"
    settings = own_way()
    base_db = mean_db(open_base(), held_out_edits(OTHERS, SIZE), settings)
    done = json.loads(place.read_text())["rows"] if place.exists() else {}
    for name in names:
        done[name] = measure(ROWS[name](), 0.0, settings, base_db)
        figures = {"settings": settings, "base_others_db": base_db, "rows": done}
        place.write_text(json.dumps(figures, indent=1) + "\n")
        print(json.dumps(done[name]), flush=True)
    columns = list(next(iter(done.values())))
    cells = [[str(row[column]) for column in columns] for row in done.values()]
    print(table(cells, columns))


if __name__ == "__main__":
    main()
