"""`customize refine`: make an adapter better by choices between its results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from customize.files.spelling import resolved


def add_to(commands: Any) -> None:
    """Describe `refine` to the command line's parser."""
    command = commands.add_parser("refine", help="make an adapter better by a person's choices")
    add = command.add_argument
    add("what", type=Path, metavar="RUN", help="folder of a finished run, or its adapter")
    add("--choices", type=Path, required=True, metavar="FILE", help="choices.jsonl, or its folder")
    add(
        "--how",
        choices=("pairs", "preference"),
        default="pairs",
        help="learn winners as further pairs, or to prefer winners to losers (%(default)s)",
    )
    add("--steps", type=_steps, default=100, metavar="N", help="at most (%(default)s)")
    add("--learning-rate", type=_rate, metavar="R", help="half of what it was trained with")
    add(*("-o", "--output"), type=Path, metavar="FOLDER", help="the new run (RUN_refined)")
    add("--overwrite", action="store_true", help="replace a refined run that is there")
    command.set_defaults(run=refine_run)


def refine_run(arguments: argparse.Namespace) -> int:
    """Refine; 130 when it was stopped."""
    from customize.training.refining.refine import refine

    source: Path = arguments.what
    folder = source if source.is_dir() else source.parent
    result = refine(
        source,
        arguments.choices,
        arguments.output or _beside(folder),
        arguments.how,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        overwrite=arguments.overwrite,
    )
    return 130 if result.adapter is None else 0


def _beside(folder: Path) -> Path:
    """Name the folder beside a run, the working folder's included, that its successor is put in."""
    if folder.name not in ("", ".."):
        return folder.with_name(f"{folder.name}_refined")
    return folder / ".." / f"{resolved(folder).name}_refined"


def _steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to 100000 steps")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 10:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0, at most 10")
    return rate
