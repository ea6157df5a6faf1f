"""`customize synthesize fit-writer`: a language model fitted to triplets people wrote."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from customize.cli.ranges import check_ranges
from customize.files import Used, check_place


def add_to(kinds: Any) -> None:
    """Describe it to the command line's parser."""
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


def fit_writer(arguments: argparse.Namespace) -> int:
    """Fit a writer; its folder goes into a recipe as `writer.adapter`."""
    check_ranges(arguments, epochs=(1, 10_000), batch=(1, 10_000), rank=(1, 1024), rate=(1e-8, 1))
    from customize.synthesis.writing.fit_writer import FitOptions, read_rows
    from customize.synthesis.writing.fit_writer import fit_writer as fit

    check_place(arguments.output, [Used("the rows", arguments.rows, shared=True)], folder=True)
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
