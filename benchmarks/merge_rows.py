"""The rows of `merge_quality.py`: concepts taught apart or jointly, and the ways to merge them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from concept_quality import by_keys_and_values

from customize.adapters.factors import Limits
from customize.embedded.world.concepts import CONCEPT_NAMES
from customize.embedded.world.edits import DrawnEdit
from customize.merging.by_edits.choose import merge_automatically
from customize.merging.by_edits.distillation import merge_by_distillation
from customize.merging.by_edits.editing_job import open_editing_job
from customize.merging.by_edits.regression import merge_by_regression
from customize.merging.job import open_job
from customize.merging.merge_files import merge
from customize.merging.methods import (
    Constrained,
    Dare,
    Distillation,
    Linear,
    MergeMethod,
    Svd,
    Ties,
)
from customize.recipe import load_recipe
from customize.training.run import run_recipe

Variant = Literal["recipes", "K/V"]
JOINT = (
    "concepts=["
    "{name: my_dog, word: <my-dog>, initializer: dog, pairs: examples/data/my_dog}, "
    "{name: brand_style, pairs: examples/data/brand_style}, "
    "{name: my_mark, word: <my-mark>, initializer: ball, pairs: examples/data/my_mark}]"
)


@dataclass(frozen=True)
class Row:
    """One line of the table: how an adapter of all concepts is made from those of a variant."""

    label: str
    way: MergeMethod | Literal["alone", "joint", "average", "regression", "distill", "auto"]
    variant: Variant = "recipes"
    limits: Limits | None = None


ROWS = (
    Row("each alone", "alone"),
    Row("trained jointly", "joint"),
    Row("naive addition", Linear()),
    Row("average", "average"),
    Row("addition by svd, rank 16", Svd(), limits=Limits(rank=16)),
    Row("ties", Ties()),
    Row("dare", Dare()),
    Row("constrained, else addition", Constrained()),
    Row("regression", "regression"),
    Row("distill", "distill"),
    Row("distill, rank 32", "distill", limits=Limits(rank=32)),
    Row("auto", "auto"),
    Row("K/V: each alone", "alone", "K/V"),
    Row("K/V: naive addition", Linear(), "K/V"),
    Row("K/V: constrained", Constrained(), "K/V"),
    Row("K/V: regression", "regression", "K/V"),
    Row("K/V: distill", "distill", "K/V"),
    Row("K/V: auto", "auto", "K/V"),
)


@dataclass(frozen=True)
class Bench:
    """Where everything is, and the edits that every row makes."""

    runs: Path
    train_steps: int | None
    concepts: Mapping[str, Sequence[DrawnEdit]]
    others: Sequence[DrawnEdit]
    settings: Mapping[str, Any]

    def taught(self, name: str, variant: Variant) -> Path:
        """Train a concept by its recipe, unless that is done."""
        changes = by_keys_and_values(name) if variant == "K/V" else ()
        return self._train(f"{variant.replace('/', '')}/{name}", name, changes)

    def jointly(self) -> Path:
        """Train all concepts into one adapter, for as long as all of them together took apart."""
        steps = f"train.steps={len(CONCEPT_NAMES) * 200}"
        return self._train("joint", "my_dog", (JOINT, steps, "pairs.flip=false"))

    def _train(self, place: str, name: str, changes: Sequence[str]) -> Path:
        output = self.runs / place
        path = output / "adapter.safetensors"
        if not path.exists():
            changes = [*changes, f"output={output}", "preview.every=null"]
            if self.train_steps is not None:
                changes.append(f"train.steps={self.train_steps}")
            run_recipe(load_recipe(Path(f"recipes/{name}.yaml"), changes))
        return path


def merged(row: Row, bench: Bench) -> tuple[Path, float, str]:
    """Merge as the row says; return the file, the seconds it took and what `auto` chose."""
    files = [bench.taught(name, row.variant) for name in CONCEPT_NAMES]
    folder = bench.runs / "merged"
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{ROWS.index(row):02d}.safetensors"
    start, chosen = time.monotonic(), ""
    match row.way:
        case "joint":
            output = bench.jointly()
        case "average":
            merge(files, output, Linear(), weights=[1 / len(files)] * len(files), overwrite=True)
        case "regression" | "distill" | "auto":
            stage = open_editing_job(open_job(files), {})
            options: Any = {"limits": row.limits, "overwrite": True}
            if row.way == "regression":
                merge_by_regression(stage, output, **options)
            elif row.way == "distill":
                merge_by_distillation(stage, output, Distillation(), **options)
            else:
                tried = merge_automatically(stage, stage.judge(), output, overwrite=True)
                chosen = tried.best.name
        case "alone":
            raise AssertionError("each adapter alone is no merge")
        case method:
            merge(files, output, method, limits=row.limits, overwrite=True)
    return output, time.monotonic() - start, chosen
