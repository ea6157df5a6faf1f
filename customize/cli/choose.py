"""`customize choose`: a judge chooses between two results of each edit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from customize.cli.scoring_arguments import (
    WHAT,
    add_edits,
    add_judge,
    check_judge,
    options_of,
    variants_of,
)


def add_to(commands: Any) -> None:
    """Describe `choose` to the command line's parser."""
    command = commands.add_parser(
        "choose", help="have a judge choose between two results of each edit"
    )
    add_edits(command, WHAT, "one is chosen between by its seeds, two are compared")
    add_judge(command)
    command.add_argument(
        *("-o", "--output"),
        type=Path,
        default=Path("choices"),
        metavar="FOLDER",
        help="folder of choices to add to (%(default)s)",
    )
    command.set_defaults(run=judge_choices)


def judge_choices(arguments: argparse.Namespace) -> int:
    """Make and judge the edits; choices are added to those that are there."""
    from customize.errors import ScoreError
    from customize.scoring.choices.fill import fill
    from customize.scoring.choices.keep import ChoiceFolder
    from customize.scoring.edits.requests import tasks_asked
    from customize.scoring.judging.open_judge import open_judge

    named = check_judge(arguments)
    folder = ChoiceFolder(arguments.output)
    before = len(folder.read())
    asked = tasks_asked(arguments.what, arguments.count)
    arguments.adapters_only = bool(arguments.adapters)  # the base takes part where it is alone
    variants = variants_of(arguments, asked)
    judge = open_judge(
        arguments.judge if named else "embedded", arguments.judge_server, arguments.device
    )
    options = options_of(arguments, "steps", "seed")
    made = fill(
        folder,
        asked.tasks,
        variants,
        judge,
        options,
        device=arguments.device,
        progress=True,
    )
    if not made:
        raise ScoreError(
            f"the judge {judge.name} gave no scores for any edit; expected two of 0 to 10 each; "
            "name another model"
        )
    decided = sum(choice.winner is not None for choice in made)
    print(f"{len(made)} choices by {judge.name}, {decided} decided, {before + len(made)} in all")
    print(f"{folder.table}\nnext: customize refine RUN --choices {folder.path}")
    return 0
