"""`customize score choices`: how often one adapter's results are preferred to another's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.scoring_arguments import dispatch
from customize.drawing.table import table
from customize.errors import ScoreError

if TYPE_CHECKING:
    from customize.scoring.choices.choice import Choice
    from customize.scoring.choices.win_rate import Duel


def add_to(score: argparse.ArgumentParser) -> None:
    """Describe `choices` to the parser of `score`."""
    command = argparse.ArgumentParser(
        prog=f"{score.prog} choices",
        description="Count blind choices: win rates between adapters, with 95 %% intervals.",
    )
    add: Any = command.add_argument
    add("choices", type=Path, metavar="FILE", help="choices.jsonl, or its folder")
    add("--between", nargs=2, metavar="ADAPTER", help="only these two: files, or names as shown")
    add("--by", metavar="WHO", help="only choices of `person`, or of a judge by its name")
    command.set_defaults(run=count_choices)
    dispatch(score, "choices", command)


def count_choices(arguments: argparse.Namespace) -> int:
    """Read the choices and print a line for every two contestants that met."""
    from customize.scoring.choices.read import read_choices
    from customize.scoring.choices.win_rate import duels, first_place

    choices = _made_by(read_choices(arguments.choices), arguments.by)
    found = duels(choices)
    if arguments.between:
        found = _between(choices, arguments.between)
    if not found:
        raise ScoreError(
            f"{arguments.choices}: its results are all of one adapter; expected choices between "
            "two; compare two in `customize studio`"
        )
    rows = [_row(duel) for duel in found]
    print(table(rows, ["one", "other", "one won", "lost", "ties", "neither", "one is preferred"]))
    if place := first_place(choices):
        print(f"the result shown first won {place}; without a habit it is half of the time")
    return 0


def _made_by(choices: Sequence[Choice], who: str | None) -> list[Choice]:
    kept = [choice for choice in choices if who in (None, choice.by)]
    if not kept:
        known = ", ".join(sorted({choice.by for choice in choices}))
        raise ScoreError(f"choices by {who!r}: none; expected one of {known}; name one of them")
    return kept


def _between(choices: Sequence[Choice], named: Sequence[str]) -> list[Duel]:
    """Return the one duel asked for, the first named first."""
    from customize.scoring.choices.win_rate import duel_of, names

    labels = names(choices)
    one, other = (_contestant(name, labels) for name in named)
    duel = duel_of(choices, one, other, labels)
    if not duel.met:
        raise ScoreError(
            f"{labels[one]} and {labels[other]} never met; expected choices between them; name two "
            "of another line, or leave --between out for all"
        )
    return [duel]


def _contestant(name: str, labels: Any) -> Any:
    """Find who is meant: a label as shown, or an adapter's file by its content."""
    import hashlib

    if Path(name).is_file():
        sha256 = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        found = [key for key in labels if [used for used, _ in key[1]] == [sha256]]
    else:
        found = [key for key, label in labels.items() if label == name]
    if len(found) == 1:
        return found[0]
    what = "it made none of the results" if not found else "it is there at several strengths"
    raise ScoreError(
        f"{name}: {what}; expected one of {', '.join(labels.values())}; name it as it is shown here"
    )


def _row(duel: Duel) -> list[str]:
    counts = (duel.won, duel.lost, duel.ties, duel.neither)
    return [duel.one, duel.other, *map(str, counts), str(duel.rate or "-")]
