"""`customize synthesize backward`: sources for finished pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from customize.cli.ranges import check_ranges


def add_to(kinds: Any) -> None:
    """Describe it to the command line's parser."""
    command = kinds.add_parser("backward", help="make sources for finished pictures")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="finished pictures")
    command.add_argument(
        "--instruction", required=True, help='what the pairs teach: "give it the brand style"'
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument(
        "--away", nargs="+", default=[], metavar="TEXT", help="how the base is asked to undo it"
    )
    command.add_argument("--base", default="embedded", help="the editing base that undoes it")
    command.add_argument("--clip", default="embedded", help="the CLIP that compares looks")
    command.add_argument("--candidates", type=int, default=12, help="sources tried of a picture")
    command.add_argument("--keep", type=int, default=2, help="sources kept of a picture, at most")
    command.add_argument(
        "--recolored",
        type=int,
        default=0,
        metavar="N",
        help="copies of each source in random colours, for looks that set all colours (3)",
    )
    command.add_argument("--least-structure", type=float, default=0.3, metavar="R")
    command.add_argument("--least-gone", type=float, default=0.02, metavar="D")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true")
    command.set_defaults(run=backward)


def backward(arguments: argparse.Namespace) -> int:
    """Make sources for finished pictures and say which of them got none."""
    check_ranges(arguments, candidates=(1, 1000), keep=(1, 1000), recolored=(0, 100))
    from customize.editing import Editor
    from customize.scoring.networks.encoders import open_clip
    from customize.synthesis.backward.make import AWAY, BackwardOptions, make_backward

    options = BackwardOptions(
        instruction=arguments.instruction,
        away=tuple(arguments.away) or AWAY,
        candidates=arguments.candidates,
        keep=arguments.keep,
        least_structure=arguments.least_structure,
        least_gone=arguments.least_gone,
        recolored=arguments.recolored,
        seed=arguments.seed,
    )
    made = make_backward(
        Editor.from_base(arguments.base),
        open_clip(arguments.clip),
        arguments.folder,
        arguments.output,
        options,
        overwrite=arguments.overwrite,
    )
    print(f"{made.kept} pairs of {made.pictures} pictures: {made.pairs}")
    if made.without:
        print(f"no good source for {len(made.without)}: {', '.join(made.without[:10])}")
    return 0
