"""`customize synthesize`: triplets from captions, from finished pictures, or from a few pairs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from customize.cli import backward, fit_writer, widen
from customize.errors import SynthesisError

KINDS = ("recipe", "backward", "widen", "fit-writer")


def add_to(commands: Any) -> None:
    """Describe `synthesize` and its kinds to the command line's parser."""
    command = commands.add_parser("synthesize", help="make triplets to train on")
    kinds = command.add_subparsers(title="kinds", metavar="RECIPE | KIND", required=True)
    _add_recipe(kinds)
    for kind in (backward, widen, fit_writer):
        kind.add_to(kinds)


def spelled(arguments: Sequence[str]) -> list[str]:
    """Read `synthesize RECIPE` as `synthesize recipe RECIPE`.

    >>> spelled(["synthesize", "recipes/mine.yaml"])
    ['synthesize', 'recipe', 'recipes/mine.yaml']
    """
    words = list(arguments)
    kind = words[1:2] if words[:1] == ["synthesize"] else []
    if kind and kind[0] not in KINDS and not kind[0].startswith("-"):
        words.insert(1, "recipe")
    return words


def _add_recipe(kinds: Any) -> None:
    command = kinds.add_parser("recipe", help="make triplets from captions, as a recipe says")
    command.add_argument("recipe", type=Path, metavar="RECIPE")
    command.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="KEY=VALUE",
        help="replace fields of the recipe: triplets=50 pictures.base=./model",
    )
    command.add_argument(
        "--keep-share", type=float, metavar="SHARE", help="choose thresholds that keep this share"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="start over where triplets are already"
    )
    command.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="draw on a Ray cluster (a local one)"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="of --ray: one for each GPU, else each CPU"
    )
    command.set_defaults(run=synthesize)


def synthesize(arguments: argparse.Namespace) -> int:
    """Make a recipe's triplets and say where they are and what was rejected."""
    from customize.recipe.synthesis import load_synthesis_recipe

    overrides = list(arguments.overrides)
    if arguments.keep_share is not None:
        overrides.append(f"filter.keep_share={arguments.keep_share}")
    recipe = load_synthesis_recipe(arguments.recipe, overrides)
    from customize.drawing.table import table
    from customize.synthesis.run import synthesize as run

    result = run(recipe, overwrite=arguments.overwrite, draw=_draw(arguments))
    print(f"{result.kept} triplets: {result.pairs}")
    if result.reasons:
        ordered = sorted(result.reasons.items(), key=lambda item: -item[1])
        print(table([[str(count), reason] for reason, count in ordered], ["rejected", "because"]))
    print(f"report: {result.report}")
    if result.kept < result.wanted:
        print(f"{result.wanted} were asked for: the captions are used up; give more of them")
    return 0


def _draw(arguments: argparse.Namespace) -> Any:
    """Return who draws on a cluster, None for this process; raises EditError for no cluster."""
    if arguments.ray is None:
        if arguments.workers is not None:
            raise SynthesisError("--workers counts those of --ray; add --ray, or leave it out")
        return None
    if arguments.workers is not None and arguments.workers < 1:
        raise SynthesisError(f"--workers {arguments.workers}: expected at least 1; leave it out")
    from functools import partial

    from customize.distributed.cluster import connect
    from customize.distributed.triplets import drawn_by_workers

    connect(arguments.ray or None)
    return partial(drawn_by_workers, workers=arguments.workers)
