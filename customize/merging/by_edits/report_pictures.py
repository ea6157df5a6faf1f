"""The pictures of a merge's report: edits side by side, and a map of what shows where."""

from __future__ import annotations

from PIL import Image

from customize.drawing.contact_sheet import contact_sheet, to_picture
from customize.drawing.heat_map import heat_map
from customize.merging.by_edits.leaks import OWN, Leaks
from customize.merging.by_edits.retention import Judge, Retention

TITLES = ("source", "instruction", "alone", "merged", "target")
SHOWN = 3
"""Edits of each concept on the sheet."""


def edits_sheet(judge: Judge, verdict: Retention) -> Image.Image:
    """Show the first edits of every concept, and of the base's own, before and after the merge."""
    rows = list[list[Image.Image | str]]()
    for asked in judge.asked:
        alone = judge.alone(asked.owner, asked)
        merged = verdict.outputs[asked.name]
        for example, one, all_ in list(zip(asked.examples, alone, merged, strict=True))[:SHOWN]:
            rows.append(
                [
                    Image.fromarray(example.source_HWC),
                    f"{example.instruction}\n\n{asked.name}",
                    to_picture(one),
                    to_picture(all_),
                    Image.fromarray(example.target_HWC),
                ]
            )
    own = list(zip(judge.own, judge.before(), verdict.own, strict=True))[:SHOWN]
    rows += [
        [
            Image.fromarray(example.source_HWC),
            f"{example.instruction}\n\n{OWN}",
            to_picture(before),
            to_picture(after),
            "what the base answers is the target",
        ]
        for example, before, after in own
    ]
    return contact_sheet(rows, TITLES)


def kept_map(judge: Judge, verdict: Retention, leaks: Leaks) -> Image.Image:
    """Draw retention where a concept is asked for and shows, leaks where another one shows."""
    names = [asked.name for asked in judge.asked]
    shares: list[list[float | None]] = [
        [verdict.concepts[at].retention if at == of else leaks.get((at, of)) for of in names]
        for at in names
    ]
    shares = [[*row, None] for row in shares]
    shares.append([*(leaks[OWN, of] for of in names), verdict.base])
    return heat_map([*names, OWN], [*names, "the base"], shares)
