"""Scored variants side by side: the printed table and the JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customize import __version__
from customize.drawing.table import table
from customize.files import write_text
from customize.scoring.items import METRICS, Item, Metric, Models, Picture, Scores
from customize.scoring.judging.opinion import Judge

FORMAT = "customize-scores"

_FIELDS = (
    *("name", "concept", "instruction", "source_caption", "target_caption"),
    *("source", "output", "target", "mask"),
)


@dataclass(frozen=True)
class Scored:
    """One variant's finished edits and their scores."""

    label: str
    items: tuple[Item, ...]
    scores: Scores


def metrics_shown(scored: Sequence[Scored]) -> list[Metric]:
    """List the metrics that any variant has, in their usual order."""
    present = {name for one in scored for name in one.scores.metrics()}
    return [metric for metric in METRICS if metric.name in present]


def summary(scored: Sequence[Scored]) -> tuple[list[list[str]], list[str]]:
    """Return a row a metric and a column a variant, mean ± standard error, and the titles."""
    rows = [
        [metric.title, metric.better, *(_mean(one.scores, metric) for one in scored)]
        for metric in metrics_shown(scored)
    ]
    return rows, ["metric", "better", *(one.label for one in scored)]


def summary_table(scored: Sequence[Scored]) -> str:
    """Lay the summary out for a terminal."""
    return table(*summary(scored))


def missing_scores(scored: Sequence[Scored]) -> list[str]:
    """List what is left out, once."""
    return list(dict.fromkeys(note for one in scored for note in one.scores.notes))


def write_json(
    path: Path, scored: Sequence[Scored], models: Models, about: Mapping[str, Any]
) -> Path:
    """Write everything as JSON, whole or not at all; pictures by path from the file's folder."""
    content = {
        "format": FORMAT,
        "version": __version__,
        "models": {
            "clip": models.clip and {"name": models.clip.name, "sha256": models.clip.fingerprint},
            "dino": models.dino and {"name": models.dino.name, "sha256": models.dino.fingerprint},
            "judge": models.judge and _judge(models.judge),
        },
        **about,
        "notes": missing_scores(scored),
        "variants": [_variant(one, path.parent) for one in scored],
    }
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _judge(judge: Judge) -> dict[str, str]:
    return {"name": judge.name, "fingerprint": judge.fingerprint, "asked": judge.asked}


def _variant(one: Scored, folder: Path) -> dict[str, Any]:
    means = {
        name: {
            "mean": one.scores.mean(name),
            "error": one.scores.error(name),
            "count": len(one.scores.values(name)),
        }
        for name in one.scores.metrics()
    }
    edits = [
        {**_facts(item, folder), "scores": dict(numbers)}
        for item, numbers in zip(one.items, one.scores.rows, strict=True)
    ]
    return {"label": one.label, "means": means, "edits": edits}


def _facts(item: Item, folder: Path) -> dict[str, str]:
    """Return what the item holds but for pictures in memory, paths as seen from `folder`."""
    facts: dict[str, str] = {}
    for name in _FIELDS:
        value: Picture | None = getattr(item, name)
        if isinstance(value, Path):
            facts[name] = os.path.relpath(value, folder)
        elif isinstance(value, str) and value:
            facts[name] = value
    return facts


def _mean(scores: Scores, metric: Metric) -> str:
    mean, error = scores.mean(metric.name), scores.error(metric.name)
    if mean is None:
        return "-"
    return metric.written(mean) + ("" if error is None else f" ± {metric.written(error)}")
