"""`customize synthesize`: triplets from captions, from finished pictures, or from a few pairs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KINDS = ("recipe", "fit-writer")


def add_to(commands: Any) -> None:
    """Describe `synthesize` and its kinds to the command line's parser."""
    command = commands.add_parser("synthesize", help="make triplets to train on")
    kinds = command.add_subparsers(title="kinds", metavar="RECIPE | KIND", required=True)
    _add_recipe(kinds)
    _add_fit_writer(kinds)


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
    command.set_defaults(run=synthesize)


def _add_fit_writer(kinds: Any) -> None:
    command = kinds.add_parser("fit-writer", help="fit a language model to triplets people wrote")
    command.add_argument(
        "rows", type=Path, metavar="ROWS", help="JSON lines of caption, edit and edited_caption"
    )
    command.add_argument("--model", required=True, help="folder or hub id of a language model")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--batch", type=int, default=8)
    command.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    command.add_argument("--rank", type=int, default=16)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true")
    command.set_defaults(run=fit_writer)


def synthesize(arguments: argparse.Namespace) -> int:
    """Make a recipe's triplets and say where they are and what was rejected."""
    from customize.recipe.synthesis import load_synthesis_recipe

    overrides = list(arguments.overrides)
    if arguments.keep_share is not None:
        overrides.append(f"filter.keep_share={arguments.keep_share}")
    recipe = load_synthesis_recipe(arguments.recipe, overrides)
    from customize.drawing.table import table
    from customize.synthesis.run import synthesize as run

    result = run(recipe, overwrite=arguments.overwrite)
    print(f"{result.kept} triplets: {result.pairs}")
    if result.reasons:
        ordered = sorted(result.reasons.items(), key=lambda item: -item[1])
        print(table([[str(count), reason] for reason, count in ordered], ["rejected", "because"]))
    print(f"report: {result.report}")
    if result.kept < result.wanted:
        print(f"{result.wanted} were asked for: the captions are used up; give more of them")
    return 0


def fit_writer(arguments: argparse.Namespace) -> int:
    """Fit a writer; its folder goes into a recipe as `writer.adapter`."""
    from customize.errors import SynthesisError

    for name, least in (("epochs", 1), ("batch", 1), ("rank", 1), ("rate", 1e-8)):
        if not least <= getattr(arguments, name) <= 10_000:
            raise SynthesisError(
                f"--{name} {getattr(arguments, name)}: expected {least:g} or more; leave it out"
            )
    from customize.synthesis.writing.fit_writer import FitOptions, read_rows
    from customize.synthesis.writing.fit_writer import fit_writer as fit

    rows = read_rows(arguments.rows)
    options = FitOptions(
        epochs=arguments.epochs,
        batch=arguments.batch,
        learning_rate=arguments.rate,
        rank=arguments.rank,
        seed=arguments.seed,
    )
    losses = fit(rows, arguments.model, arguments.output, options, overwrite=arguments.overwrite)
    told = ", ".join(f"{loss:.3f}" for loss in losses)
    print(f"fitted to {len(rows)} rows, loss of each epoch {told}: {arguments.output}")
    return 0
