"""What `customize edit-folder` says: before, meanwhile and afterwards."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from customize.drawing.table import table
from customize.errors import Fault

if TYPE_CHECKING:
    from customize.editing.folders.plan import Edit
    from customize.editing.folders.run import Outcome

MOST_SHOWN = 40
"""Faults shown on the terminal; the page lists all."""


def beginning(what: str, edits: Sequence[Edit], wanted: set[Edit], faults: Sequence[Fault]) -> str:
    """Say how many edits there are, and how many of them are made or cannot be."""
    sizes = Counter(edit.working for edit in edits)
    done = len(edits) - len(wanted)
    parts = [f"{what}: {len(edits)} edits at {len(sizes)} working size{'s'[: len(sizes) > 1]}"]
    parts += [f"{done} there already"] if done else []
    parts += [f"{len(faults)} that cannot be read"] if faults else []
    return ", ".join(parts)


def with_bar(made: Iterator[Outcome], count: int) -> Iterator[Outcome]:
    """Pass outcomes on while a bar tells how many, how fast, and how long still."""
    from tqdm import tqdm

    failed = 0
    with tqdm(total=count, desc="editing", unit="picture", disable=None, smoothing=0.05) as bar:
        for outcome in made:
            failed += isinstance(outcome.done, Fault)
            bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            bar.update()
            yield outcome


def summary(
    arguments: argparse.Namespace, edits: Sequence[Edit], made: int, seconds: float
) -> list[str]:
    """Return lines on what was done and how fast."""
    told = edits[0].settings.as_parameters().splitlines()[-1] if edits else ""
    told = re.sub(r"Size: \d+x\d+, ", "", told)  # each picture has its own
    rate = f"{made} made in {seconds:.1f} s, {made / seconds:.2f} a second" if made else "none made"
    return [" → ".join(arguments.instructions), told, rate]


def print_faults(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> int:
    """Print what went wrong and what was changed on reading; return the exit code."""
    notes = Counter(
        note for one in outcomes if not isinstance(one.done, Fault) for note in one.done.notes
    )
    for note, count in notes.most_common():
        print(f"{count} picture{'s'[: count > 1]}: {note}")
    if not faults:
        return 0
    rows = [[fault.place, fault.found, fault.cure] for fault in faults[:MOST_SHOWN]]
    print(f"\nnot edited: {len(faults)}\n{table(rows, ['where', 'found', 'what to do'])}")
    if len(faults) > MOST_SHOWN:
        print(f"and {len(faults) - MOST_SHOWN} more; the page lists all")
    return 1
