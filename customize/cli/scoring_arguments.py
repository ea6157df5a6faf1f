"""Arguments that the scoring commands have in common, and what is made of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.inputs import used_adapters, used_bases
from customize.errors import ScoreError
from customize.files import REPLACE, Used, check_place, refuse_existing

if TYPE_CHECKING:
    from customize.scoring.edits.requests import RequestedEdits
    from customize.scoring.edits.variants import Variant

AGAIN = f"{REPLACE}; what was made and measured before is used again"
WHAT = "a recipe, pairs in any layout, or `embedded`, `embedded/my_dog`: edits of the drawn world"


def add_edits(command: argparse.ArgumentParser, what: str, adapters: str) -> None:
    """Add what is edited, with what, and how; `adapters` says what several adapters mean."""
    add = command.add_argument
    add("what", metavar="WHAT", help=what)
    add("--overwrite", action="store_true", help="replace results that exist")
    add(
        *("-a", "--adapter"),
        dest="adapters",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="FILE[:STRENGTH]",
        help=adapters,
    )
    add(
        "--base",
        dest="bases",
        nargs="+",
        default=list[str](),
        metavar="BASE",
        help="embedded, hub id, folder or file (the first adapter's)",
    )
    add("--count", type=int, metavar="N", help="only the first N edits (all; 32 drawn ones)")
    add("--steps", type=int, help="sampling steps (the base's own)")
    add("--seed", type=int, help="starting noise of the first edit (0)")
    add("--clip", metavar="MODEL", help="embedded, folder or hub id (what suits the base)")
    add("--at-once", type=_count, metavar="N", help="edits made together (8)")
    add("--device", help="cuda, mps or cpu (the best there is)")


def add_compared(command: argparse.ArgumentParser, what: str) -> None:
    """Add what is edited, and what does it: each adapter by itself, beside the base alone."""
    add_edits(command, what, "each is scored by itself; joined by + they are used together")
    command.add_argument("--adapters-only", action="store_true", help="leave out the base alone")


def add_judge(command: argparse.ArgumentParser) -> None:
    """Add who judges."""
    add = command.add_argument
    add(
        "--judge",
        metavar="MODEL",
        help="a server's vision model, or without one the CLIP `embedded`",
    )
    add(
        "--judge-server",
        metavar="URL",
        help="of OpenAI's protocol, such as http://localhost:8000/v1",
    )


def check_judge(arguments: argparse.Namespace) -> bool:
    """Tell whether a judge is named; raises ScoreError for a server without a model."""
    if arguments.judge is None and arguments.judge_server is not None:
        raise ScoreError(
            f"--judge-server {arguments.judge_server}: no model of it is named; expected both; "
            "name one (--judge MODEL)"
        )
    return arguments.judge is not None


def add_swept(command: argparse.ArgumentParser, images: str) -> None:
    """Add the guidances that a sweep goes through; `images` says those of the image."""
    add = command.add_argument
    add(
        "--text-guidance",
        dest="text_guidances",
        type=float,
        nargs="+",
        metavar="S",
        help="the base's own; 7.5 for Stable Diffusion's",
    )
    add(
        "--image-guidance",
        dest="image_guidances",
        type=float,
        nargs="+",
        metavar="S",
        help=images,
    )


def dispatch(command: Any, word: str, other: argparse.ArgumentParser) -> None:
    """Let `other` read what follows `word`: argparse has no subcommand beside a free argument."""
    own = command.parse_known_args

    def parse_known_args(arguments: Sequence[str], namespace: Any = None) -> Any:
        if arguments and arguments[0] == word:
            return other.parse_known_args(arguments[1:], namespace)
        return own(arguments, namespace)

    command.parse_known_args = parse_known_args


def variants_of(arguments: argparse.Namespace, asked: RequestedEdits) -> list[Variant]:
    """List the bases and adapters named, each group of adapters by itself."""
    from customize.scoring.edits.variants import compared, group_of

    return compared(
        arguments.bases,
        [group_of(text) for text in arguments.adapters],
        alone=not arguments.adapters_only,
        recipe=asked.recipe,
    )


def _count(text: str) -> int:
    """Read a number of things, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return int(text)


def options_of(arguments: argparse.Namespace, *names: str) -> Any:
    """Return, by name, the options that were given; those left out keep the callee's defaults."""
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def used_by(arguments: argparse.Namespace) -> list[Used]:
    """List what a scoring command reads, as far as the command line names it."""
    from customize.scoring.edits.variants import group_of

    what = Path(arguments.what)
    groups = [group_of(text) for text in arguments.adapters]
    there = os.path.exists(what)
    found = [Used(f"what is scored, {what}", what, shared=what.is_file())] if there else []
    adapters = used_adapters(path for group in groups for path, _ in group)
    return [*found, *adapters, *used_bases(arguments.bases)]


def check_free(path: Path, arguments: argparse.Namespace, *, again: bool = False) -> None:
    """Refuse a result that is there already, or that cannot be put where it is to be.

    `again` is for one that a stopped run left. Raises OutputError.
    """
    check_place(path, used_by(arguments))
    refuse_existing(path, overwrite=arguments.overwrite or again, cure=AGAIN)
