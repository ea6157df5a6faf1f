"""`customize tune-guidance`: which text and image guidance suit one edit, or a set of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from customize.errors import ScoreError
from customize.scoring.arguments import (
    WHAT,
    add_edits,
    add_swept,
    check_free,
    options_of,
    variants_of,
)


def add_to(commands: Any) -> None:
    """Describe `tune-guidance` to the command line's parser."""
    command = commands.add_parser("tune-guidance", help="choose text and image guidance")
    add = command.add_argument
    add_edits(command, f"a picture; or {WHAT}")
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
    from customize.scoring import open_models
    from customize.scoring.inputs import Asked, clip_for_bases, one_task, tasks_asked
    from customize.scoring.results import write_text
    from customize.scoring.tasks import reworded
    from customize.scoring.tuning import tune

    if arguments.output is not None:
        check_free(arguments.output, arguments)
    if arguments.instruction is None:
        if arguments.captions:
            raise ScoreError("--captions: they are of one picture; name it and its instruction")
        asked = tasks_asked(arguments.what, arguments.count)
    else:
        picture = Path(arguments.what)
        asked = Asked((one_task(picture, arguments.instruction, arguments.captions or ()),))
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
        [reworded(task, variant.plain, variant.taught) for task in asked.tasks],
        models,
        text_guidances=arguments.text_guidances or (),
        image_guidances=arguments.image_guidances or (),
        options=options_of(arguments, "steps", "seed"),
        floor=arguments.floor,
        at_once=arguments.at_once,
        progress=True,
    )
    print(f"{choice.table()}\n{choice.reason}")
    if arguments.output is not None:
        write_text(arguments.output, json.dumps(asdict(choice), indent=2) + "\n")
    return 0
