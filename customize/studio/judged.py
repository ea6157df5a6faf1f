"""What a judge that is no person says of edits on the page: two scores and their mean, 0 to 10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from customize.errors import StudioError
from customize.scoring.edits.requests import clip_for_bases
from customize.scoring.judging.open_judge import open_judge
from customize.scoring.judging.opinion import JudgedEdit
from customize.studio import html

TITLES = ("edit", "follows the instruction", "keeps the rest", "both")


@dataclass(frozen=True)
class Asked:
    """Who judges, as the command line names it; `model` None is the CLIP that suits the base."""

    model: str | None = None
    server: str | None = None


@dataclass(frozen=True)
class Finished:
    """One edit that may be judged, under its label, by the base it was made with."""

    label: str
    base: str
    edit: JudgedEdit


def opinions(asked: Asked, edits: Sequence[Finished] | None) -> str:
    """Return the judge's scores as a table, best first; raises StudioError, EndpointError."""
    if not edits:
        raise StudioError("nothing to judge yet; expected edits; compare some first")
    model = asked.model or clip_for_bases([each.base for each in edits])
    judge = open_judge(model, asked.server)
    rows: list[tuple[float, list[str]]] = []
    for each, opinion in zip(edits, judge.opinions([one.edit for one in edits]), strict=True):
        if opinion.scores is None:
            cells = [opinion.failure or "no answer", "", ""]
        else:
            cells = [f"{score:.1f}" for score in (*opinion.scores, opinion.overall or 0.0)]
        rows.append((opinion.overall or 0.0, [each.label, *cells]))
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    said = html.said(f"judged by {judge.name}; each 0 to 10, the best first")
    question = html.folded("what it was asked", html.said(judge.asked))
    return said + html.table(TITLES, ordered) + question
