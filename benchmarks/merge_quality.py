"""Measure what merging keeps of three concepts: `python benchmarks/merge_quality.py [ROW ...]`.

An object, a style and a recurring mark are taught apart, each by its recipe, and merged by every
method. Each merged adapter edits 64 unseen sources of every concept, whose true targets are known,
and makes the base's own edits again. Rows already in `benchmarks/results/merge_quality.json` are
kept unless named or `--again` is given; adapters are kept under `runs/merge_quality`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from base_quality import RESULTS, held_out_edits
from concept_quality import open_base
from merge_rows import ROWS, Bench, Row, merged
from PIL import Image
from quality import edit_all, own_way, score, table

from customize.adapters.apply import apply_adapters
from customize.adapters.file import read_adapter
from customize.drawing.contact_sheet import contact_sheet
from customize.drawing.heat_map import heat_map
from customize.embedded.world.concepts import CONCEPT_NAMES, concept_pair
from customize.embedded.world.edits import DrawnEdit
from customize.embedded.world.scenes import SIZE
from customize.merging.by_edits.retention import Kept, change_made

FIRST = 100
"""Number of the first unseen pair: earlier ones are the held-out pairs that `auto` judges by."""
KEPT, LOST = 0.9, 0.05
"""The bar: what every concept must keep, and what the base's own edits may lose."""
SHOWN = 2


def measure(row: Row, bench: Bench, alone: Mapping[str, float], own: float) -> dict[str, Any]:
    """Make a row's adapter and score it on every concept and on the base's own edits.

    `alone` is what each concept's own adapter scores, `own` what the base scores on its own edits.
    """
    path, seconds, chosen = merged(row, bench)
    pipeline = open_base()
    apply_adapters(pipeline, [(read_adapter(path), 1.0)])
    outputs = {
        n: edit_all(pipeline, edits, **bench.settings) for n, edits in bench.concepts.items()
    }
    keep_shown(row, bench, outputs)
    scores = {name: mean_score(bench.concepts[name], made) for name, made in outputs.items()}
    others = mean_score(bench.others, edit_all(pipeline, bench.others, **bench.settings))
    retention = {name: Kept(alone[name], made).retention or 0.0 for name, made in scores.items()}
    return {
        "method": row.label,
        "retention": retention,
        "change_made": scores,
        "strong": {name: strong(bench.concepts[name], made) for name, made in outputs.items()},
        "base_lost": 1 - others / own,
        "seconds": None if row.way == "joint" else seconds,  # a training, not a merge
        "megabytes": path.stat().st_size / 1e6,
        "chosen": chosen,
        "meets": min(retention.values()) >= KEPT and 1 - others / own <= LOST,
    }


def measure_alone(row: Row, bench: Bench, own: float) -> dict[str, Any]:
    """Score every concept's own adapter on its concept and on the base's own edits."""
    scores, lost, shown = dict[str, float](), dict[str, float](), dict[str, np.ndarray]()
    for name, edits in bench.concepts.items():
        pipeline = open_base()
        path = bench.taught(name, row.variant)
        apply_adapters(pipeline, [(read_adapter(path), 1.0)])
        shown[name] = edit_all(pipeline, edits, **bench.settings)
        scores[name] = mean_score(edits, shown[name])
        others = edit_all(pipeline, bench.others, **bench.settings)
        lost[name] = 1 - mean_score(bench.others, others) / own
    keep_shown(row, bench, shown)
    return {
        "method": row.label,
        "retention": dict.fromkeys(scores, 1.0),
        "change_made": scores,
        "strong": {name: strong(bench.concepts[name], made) for name, made in shown.items()},
        "base_lost": max(lost.values()),
        "base_lost_by": lost,
    }


def mean_score(edits: Sequence[DrawnEdit], outputs: np.ndarray) -> float:
    """Average the share of the change made, 1 - |output - target|^2 / |source - target|^2."""
    made = [
        change_made(output / 255.0, edit.source_HWC / 255.0, edit.target_HWC / 255.0)
        for edit, output in zip(edits, outputs, strict=True)
    ]
    return float(np.mean(made))


def strong(edits: Sequence[DrawnEdit], outputs: np.ndarray) -> float:
    """Return the share of edits that `quality.score` calls strong."""
    return float(np.mean([score(e, o).strong for e, o in zip(edits, outputs, strict=True)]))


def keep_shown(row: Row, bench: Bench, outputs: Mapping[str, np.ndarray]) -> None:
    """Keep the first outputs of a row for the picture."""
    folder = bench.runs / "shown"
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in outputs.items():
        for index, output in enumerate(made[:SHOWN]):
            Image.fromarray(output).save(folder / f"{ROWS.index(row):02d}_{name}_{index}.png")


def pictures(bench: Bench, done: Mapping[str, dict[str, Any]], out: Path) -> None:
    """Draw edits by the rows measured side by side, and what each keeps as a map."""
    rows = [row for row in ROWS if row.label in done and row.variant == "recipes"]
    sheet = [
        [
            Image.fromarray(edit.source_HWC),
            edit.instruction,
            *(
                Image.open(bench.runs / "shown" / f"{ROWS.index(row):02d}_{name}_{index}.png")
                for row in rows
            ),
            Image.fromarray(edit.target_HWC),
        ]
        for name, edits in bench.concepts.items()
        for index, edit in enumerate(edits[:SHOWN])
    ]
    titles = ["source", "instruction", *(row.label for row in rows), "target"]
    contact_sheet(sheet, titles, cell=96).save(out.with_suffix(".png"))
    shares = [[*row["retention"].values(), 1 - row["base_lost"]] for row in done.values()]
    columns = [*CONCEPT_NAMES, "the base's own"]
    heat_map(list(done), columns, shares, sides=("merged by", "kept")).save(
        out.with_name(f"{out.stem}_map.png")
    )


def show(done: Mapping[str, dict[str, Any]]) -> str:
    """Lay out what was measured as a Markdown table."""
    lines = [
        [
            row["method"] + (f" ({row['chosen']})" if row.get("chosen") else ""),
            *(f"{100 * row['retention'][name]:.0f} %" for name in CONCEPT_NAMES),
            f"{100 * row['base_lost']:.1f} %",
            f"{row['seconds']:.1f}" if row.get("seconds") else "",
            f"{row['megabytes']:.1f}" if "megabytes" in row else "",
            "yes" if row.get("meets") else "",
        ]
        for row in done.values()
    ]
    return table(lines, ["merged by", *CONCEPT_NAMES, "base loses", "seconds", "MB", "meets"])


def main() -> None:
    """Measure what is missing, save after every row, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, help="numbers of rows, from 0; default all")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--unseen", type=int, default=64, help="sources of each concept")
    parser.add_argument("--others", type=int, default=54, help="the base's own edits")
    parser.add_argument("--train-steps", type=int, help="other than the recipes say, for a trial")
    parser.add_argument("--runs", type=Path, default=Path("runs/merge_quality"))
    parser.add_argument("--out", type=Path, default=RESULTS / "merge_quality.json")
    arguments = parser.parse_args()
    bench = Bench(
        runs=arguments.runs,
        train_steps=arguments.train_steps,
        concepts={
            name: [concept_pair(name, FIRST + i, test=True) for i in range(arguments.unseen)]
            for name in CONCEPT_NAMES
        },
        others=held_out_edits(arguments.others, SIZE),
        settings=own_way(detail="scaled"),
    )
    figures: dict[str, Any] = {"rows": {}}
    if arguments.out.exists():
        figures = json.loads(arguments.out.read_text())
    if "base" not in figures:
        outputs = edit_all(open_base(), bench.others, **bench.settings)
        figures["base"] = mean_score(bench.others, outputs)
    done: dict[str, dict[str, Any]] = figures["rows"]
    variants = {ROWS[number].variant for number in arguments.rows}
    for number, row in enumerate(ROWS):
        named = number in arguments.rows
        due = named or not arguments.rows or (row.way == "alone" and row.variant in variants)
        if not due or (row.label in done and not named and not arguments.again):
            continue
        if row.way == "alone":
            done[row.label] = measure_alone(row, bench, figures["base"])
        else:
            apart = next(r for r in ROWS if r.way == "alone" and r.variant == row.variant)
            alone = done[apart.label]["change_made"]
            done[row.label] = measure(row, bench, alone, figures["base"])
        ordered = {r.label: done[r.label] for r in ROWS if r.label in done}
        figures |= {
            "unseen": arguments.unseen,
            "others": arguments.others,
            "settings": bench.settings,
            "rows": ordered,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(done[row.label]), flush=True)
    pictures(bench, figures["rows"], arguments.out)
    print(show(figures["rows"]))


if __name__ == "__main__":
    main()
