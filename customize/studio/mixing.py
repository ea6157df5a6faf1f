"""Merging as the page asks for it: a method by its name, with or without the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from customize.errors import StudioError
from customize.merging.merge_files import merge
from customize.merging.methods import (
    Concat,
    Constrained,
    Dare,
    Distillation,
    Linear,
    Regression,
    Svd,
    Ties,
)

METHODS: dict[str, Any] = {
    "constrained": Constrained(),
    "linear": Linear(),
    "concat": Concat(),
    "svd": Svd(),
    "ties": Ties(),
    "dare": Dare(),
    "regression": Regression(),
    "distill": Distillation(),
    "auto": "auto",
}
_LOOKING = ("regression", "distill", "auto")


def merge_into(
    adapters: Sequence[tuple[Path, float]], output: Path, method: str, report: Path | None
) -> list[tuple[str, str]]:
    """Merge adapters by the method of that name, and return what there is to say, as a table."""
    if method not in METHODS:
        raise StudioError(f"method {method!r:.40}: expected one of {', '.join(METHODS)}")
    files, weights = [path for path, _ in adapters], [strength for _, strength in adapters]
    if method in _LOOKING or report is not None:
        from customize.merging.by_edits.merge_by_edits import EditTrials, merge_by_edits

        merged = merge_by_edits(
            files, output, METHODS[method], EditTrials(report=report), weights=weights
        )
    else:
        merged = merge(files, output, METHODS[method], weights=weights)
    rows = [("method", method), ("layers cut to low rank", str(len(merged.losses)))]
    rows += [
        ("renamed", f"{old} is now {new}") for each in merged.renamed for old, new in each.items()
    ]
    return [*rows, *([("report", report.name)] if report else [])]
