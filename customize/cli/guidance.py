"""`customize tune-guidance`: which text and image guidance suit one edit, or a set of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from customize.cli.scoring_arguments import (
    WHAT,
    add_edits,
    add_swept,
    check_free,
    options_of,
    variants_of,
)
from customize.errors import ScoreError
from customize.pairs.picture_files import PICTURE_SUFFIXES

_SETS = (".yaml", ".yml", ".jsonl", ".json", ".csv")
"""Suffixes of what holds several edits."""


def add_to(commands: Any) -> None:
    """Describe `tune-guidance` to the command line's parser."""
    command = commands.add_parser("tune-guidance", help="choose text and image guidance")
    add = command.add_argument
    add_edits(command, f"a picture; or {WHAT}", "adapters to use, together where several")
    add("instruction", nargs="?", help="what to do, for a picture")
    add("--captions", nargs=2, metavar=("BEFORE", "AFTER"), help="what the picture shows")
    add_swept(command, "1.0 1.2 1.5 1.8, and the base's own")
    add(
        "--floor", type=float, metavar="X", help="least image similarity (0.75 in the paper's data)"
    )
    add("-o", "--output", type=Path, metavar="JSON", help="keep the sweep")
    command.set_defaults(run=tune_guidance)


def tune_guidance(arguments: argparse.Namespace) -> int:
    """Sweep both guidances for one edit or a set, print all, and say which was chosen and why."""
    from customize.editing import Editor
    from customize.files import write_text
    from customize.scoring import open_models
    from customize.scoring.edits.requests import (
        RequestedEdits,
        clip_for_bases,
        one_task,
        tasks_asked,
    )
    from customize.scoring.edits.tasks import in_plain_words
    from customize.scoring.guidance.tune import tune

    if arguments.output is not None:
        check_free(arguments.output, arguments)
    if arguments.instruction is None:
        _check_set(arguments)
        asked = tasks_asked(arguments.what, arguments.count)
    else:
        _check_one(arguments)
        picture = Path(arguments.what)
        asked = RequestedEdits(
            (one_task(picture, arguments.instruction, arguments.captions or ()),)
        )
    # Adapters are used together here, as in `edit`: one setting is chosen for them all.
    arguments.adapters = ["+".join(arguments.adapters)] if arguments.adapters else []
    arguments.adapters_only = bool(arguments.adapters)
    variant, *others = variants_of(arguments, asked)
    if others:
        raise ScoreError("--base: guidance is chosen for one base at a time; name one")
    models = open_models(arguments.clip or clip_for_bases([variant.base]), device=arguments.device)
    editor = variant.put_on(Editor.from_base(variant.base, device=arguments.device))
    choice = tune(
        editor,
        [in_plain_words(task, variant.plain, variant.taught) for task in asked.tasks],
        models,
        text_guidances=arguments.text_guidances or (),
        image_guidances=arguments.image_guidances or (),
        options=options_of(arguments, "steps", "seed"),
        floor=arguments.floor,
        **options_of(arguments, "at_once"),
        progress=True,
    )
    print(f"{choice.table()}\n{choice.reason}")
    if arguments.output is not None:
        write_text(arguments.output, json.dumps(asdict(choice), indent=2) + "\n")
    return 0


def _check_one(arguments: argparse.Namespace) -> None:
    """Refuse an instruction beside what is no picture, and options of sets; raises ScoreError."""
    what = Path(arguments.what)
    if what.is_dir() or what.suffix.lower() in _SETS or arguments.what.startswith("embedded"):
        raise ScoreError(
            f"{arguments.what}: a set of edits has its own instructions; expected a picture beside "
            f"{arguments.instruction!r}; name one, or leave the instruction out"
        )
    if arguments.count is not None:
        raise ScoreError("--count: one picture is one edit; leave it out, or name a set")
    if arguments.captions and len({*arguments.captions}) == 1:
        raise ScoreError(
            f"--captions: both are {arguments.captions[0]!r}, so nothing changes; expected what "
            "the picture shows before and after the edit; write both, or leave them out"
        )


def _check_set(arguments: argparse.Namespace) -> None:
    """Refuse what is said of one picture where no instruction is there; raises ScoreError."""
    if arguments.captions:
        raise ScoreError("--captions: they are of one picture; name it and its instruction")
    if Path(arguments.what).suffix.lower() in PICTURE_SUFFIXES:
        raise ScoreError(
            f"{arguments.what}: a picture without an instruction; expected what to do with it; "
            f'write it in quotes: customize tune-guidance {arguments.what} "make it night"'
        )
