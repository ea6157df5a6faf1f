"""The command line: parse, call, and print what went wrong, which nothing else in here does."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from customize import __version__, cli_commands, cli_editing, cli_inspecting
from customize.errors import CustomizeError, FaultsError
from customize.text_tables import table

EXAMPLES = """\
examples:
  customize check recipes/my_dog.yaml                    look at the pairs before training
  customize train recipes/my_dog.yaml                    teach the concept
  customize train recipes/my_dog.yaml --set train.steps=50 train.seed=1
  customize edit cat.png "make it night" -o night.png    edit with the base alone
  customize edit park.png "turn the dog into <my-dog>" --adapter runs/my_dog/adapter.safetensors
  customize inspect runs/my_dog/adapter.safetensors      what an adapter is and was taught

`customize COMMAND --help` tells all options of one command.
"""

_NOT_OUR_FAULT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 a fault the user can mend, 130 Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("customize").setLevel(logging.INFO)
    try:
        parsed = parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = cast("Callable[[argparse.Namespace], int]", parsed.run)(parsed)
        sys.stdout.flush()
    except FaultsError as error:
        rows = [[fault.place, fault.found, fault.cure] for fault in error.faults]
        _complain(str(error).splitlines()[0])
        print(table(rows, ["where", "found", "what to do"]), file=sys.stderr)
        return 2
    except CustomizeError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`); Python's last flush at exit must find an open file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _NOT_OUR_FAULT:
            raise
        _complain(f"{error.filename or 'writing'}: {error.strerror}; free or allow it, and repeat")
        return 2
    return code


def parser() -> argparse.ArgumentParser:
    """Describe all commands; imports nothing heavy."""
    top = argparse.ArgumentParser(
        prog="customize",
        description="Teach an instruction-editing diffusion model a concept from 3-5 pairs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"customize {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser("train", help="teach the concepts of a recipe")
    _add_recipe(train)
    train.add_argument("--overwrite", action="store_true", help="start over where a run is already")
    train.set_defaults(run=cli_commands.train)

    check = commands.add_parser("check", help="find faults in recipe and pairs without training")
    _add_recipe(check)
    check.add_argument(
        *("-o", "--output"), type=Path, metavar="SHEET", help="contact sheet (RECIPE_pairs.png)"
    )
    check.add_argument("--overwrite", action="store_true", help="replace the sheet if it exists")
    check.set_defaults(run=cli_commands.check)

    _add_edit(commands.add_parser("edit", help="edit a picture, with or without adapters"))

    inspect = commands.add_parser("inspect", help="tell what an adapter or an edited PNG is")
    inspect.add_argument("file", type=Path, metavar="FILE", help="adapter.safetensors or PNG")
    inspect.set_defaults(run=cli_inspecting.inspect)

    schema = commands.add_parser("schema", help="print the JSON Schema of recipes, for editors")
    schema.set_defaults(run=cli_commands.schema)

    fit = commands.add_parser("fit-base", help="fit the small base that ships here")
    fit.add_argument("recipe", type=Path, metavar="RECIPE", help="recipes/base/embedded.yaml")
    fit.add_argument(
        "--from", dest="start_from", metavar="BASE", help="go on from `embedded` or a folder"
    )
    fit.set_defaults(run=cli_commands.fit_base)
    return top


def _add_recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="such as recipes/my_dog.yaml")
    command.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="KEY=VALUE",
        help="replace fields of the recipe: train.steps=50 base=./model",
    )


def _add_edit(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("image", type=Path, metavar="IMAGE", help="a picture of any size")
    add(
        "instructions",
        nargs="+",
        metavar="INSTRUCTION",
        help="what to do, in quotes; several are applied one after another, each stage is saved",
    )
    add("-o", "--output", type=Path, metavar="PNG", help="where to write (IMAGE_edited.png)")
    add("--overwrite", action="store_true", help="replace pictures that exist")
    add(
        *("-a", "--adapter"),
        dest="adapters",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="FILE[:STRENGTH]",
        help="adapters to use, each with a strength (1)",
    )
    add("--base", metavar="BASE", help="embedded, hub id, folder or file (the first adapter's)")
    add("--revision", help="branch, tag or commit of a hub base")
    add("--precision", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    add("--device", help="cuda, mps or cpu (the best there is)")
    add("--steps", type=int, help="sampling steps (the base's own)")
    add("--scheduler", metavar="NAME", help="ddim, ddpm, euler, euler_a, dpmpp, dpmpp_sde, unipc")
    add("--seed", type=int, help="starting noise (0)")
    add("--text-guidance", type=float, metavar="S", help="follow the instruction: 1 to 50")
    add("--image-guidance", type=float, metavar="S", help="keep to the picture: 1 to 50")
    add("--resolution", type=int, metavar="PIXELS", help="side of the area worked at (the base's)")
    command.set_defaults(run=cli_editing.edit)


def _complain(text: str) -> None:
    print(f"customize: {text}", file=sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Show warnings as sentences; those for programmers are not for users."""
    if not issubclass(category, DeprecationWarning | FutureWarning | ImportWarning):
        print(f"warning: {message}", file=sys.stderr)
