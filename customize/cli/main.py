"""The command line: parse, call, and print what went wrong, which nothing else in here does."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import TextIO, cast

from customize import __version__
from customize.cli import (
    choose,
    edit,
    edit_folder,
    export,
    guidance,
    inspect,
    merge,
    refine,
    score,
    share,
    studio,
    synthesize,
    train,
)
from customize.cli.terminal import Shown, spelled_as_stored
from customize.drawing.escape import visible
from customize.drawing.table import table
from customize.errors import CustomizeError, FaultsError

EXAMPLES = """\
examples:
  customize check recipes/my_dog.yaml                    look at the pairs before training
  customize train recipes/my_dog.yaml                    teach the concept
  customize train recipes/my_dog.yaml --set train.steps=50 train.seed=1
  customize edit cat.png "make it night" -o night.png    edit with the base alone
  customize edit park.png "turn the dog into <my-dog>" --adapter runs/my_dog/adapter.safetensors
  customize edit-folder shots "make it night" -o night   edit many alike; may be stopped
  customize inspect runs/my_dog/adapter.safetensors      what an adapter is and was taught

`customize COMMAND --help` tells all options of one command.
"""

_NOT_OUR_FAULT = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
        "free or allow it, and repeat",
    ),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
        "expected a folder where folders go and a file where files go; name another output",
    ),
    **dict.fromkeys(
        (errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE),
        "expected a path that the disk can hold and read; check it, or name another",
    ),
}
"""What to do about errors of the system, by number; others are ours and keep their traceback."""
_LINE_END, _LONGEST = "\n", 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 a fault the user can mend, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):  # letters that a terminal lacks, odd names
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("customize").setLevel(logging.INFO)
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        shown = cast("TextIO", Shown(sys.stdout))
        with warnings.catch_warnings(), contextlib.redirect_stdout(shown):
            warnings.showwarning = _show_warning
            code = cast("Callable[[argparse.Namespace], int]", parsed.run)(parsed)
            sys.stdout.flush()
    except FaultsError as error:
        rows = [[_cut(text) for text in (f.place, f.found, f.cure)] for f in error.told]
        _complain([error.heading])
        print(table(rows, ["where", "found", "what to do"]), file=sys.stderr)
        return 2
    except CustomizeError as error:
        _complain(error.sentences())
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
        cure = _NOT_OUR_FAULT[error.errno]
        _complain([f"{error.filename or 'writing'}: {error.strerror}; {cure}"])
        return 2
    return code


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line; argparse prints and exits where it is none."""
    return parser().parse_args(synthesize.spelled(spelled_as_stored(words)))


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

    parts = (train, choose, refine, edit, edit_folder, inspect, merge, export, share)
    for part in (*parts, score, guidance, synthesize, studio):
        part.add_to(commands)
    return top


def _complain(sentences: Sequence[str]) -> None:
    lines = "\n".join(visible(_cut(each)) for each in sentences)
    print(f"customize: {lines}", file=sys.stderr)


def _cut(text: str) -> str:
    """Cut a text that quotes too much of a file."""
    more = len(text) - _LONGEST
    return text if more <= 0 else f"{text[:_LONGEST]}... ({more} letters more)"


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Show warnings as sentences; those for programmers are not for users."""
    if not issubclass(category, DeprecationWarning | FutureWarning | ImportWarning):
        print(f"warning: {visible(str(message), keep=_LINE_END)}", file=sys.stderr)
