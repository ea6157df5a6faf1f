"""Names of files in a recipe -> paths that exist, or a fault with its cure.

A recipe read from a file is validated with the context `{"folder": folder of the recipe}`: relative
paths start there, those typed on the command line at the working directory, and what they name must
exist. Without a context (recipes made in Python, or read back from an adapter's header) paths are
taken as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from customize.files.spelling import as_stored
from customize.files.text import Unreadable, check_path, special_file


class TypedText(str):
    """Text typed on the command line: paths in it start at the working directory."""

    __slots__ = ()


def fault(found: str, cure: str) -> PydanticCustomError:
    """Make a validation error that carries what was found and its cure, braces and all."""
    return PydanticCustomError("fault", "{found}; {cure}", {"found": found, "cure": cure})


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'rank'?" for `rnak`, or nothing where nothing known comes close."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def existing_path(value: Any, info: ValidationInfo) -> Path:
    """Resolve `value` and insist that it exists when the recipe comes from a file."""
    if not isinstance(value, str | Path) or not str(value):
        raise fault(f"found {value!r}", "write the path of a folder or file")
    if info.context is None:
        return Path(value)
    path = _resolve(value, info.context["folder"])
    if not os.path.exists(path):  # unlike Path.exists, also false where looking is forbidden
        raise fault(f"no such folder or file: {path}", _cure(path, value, info.context["folder"]))
    if kind := special_file(path):
        raise fault(f"{path} is {kind}", "name a folder or file")
    return path


def output_folder(value: Any) -> Path:
    """Accept a folder to write to; it starts at the working directory and need not exist."""
    if not isinstance(value, str | Path) or not str(value):
        raise fault(f"found {value!r}", "write the path of a folder, such as runs/my_dog")
    _check(value)
    return Path(value).expanduser()


def instruction_source(value: Any, info: ValidationInfo) -> Path | str | tuple[str, ...]:
    """Accept `base`, a list of instructions, or a text file that holds one a line."""
    if value == "base":
        return "base"
    if isinstance(value, list | tuple):
        items = cast("tuple[Any, ...]", tuple(value))  # pyright: ignore[reportUnknownArgumentType]
        if items and all(isinstance(item, str) and item.strip() for item in items):
            return items
        raise fault(f"found {list(items)!r}", "list at least one instruction, each a text")
    path = existing_path(value, info)
    if info.context is not None and not path.is_file():
        raise fault(
            f"{path} is a folder",
            "name a text file with one instruction a line, or list them here",
        )
    return path


def base_name(value: Any, info: ValidationInfo) -> Any:
    """Tell `embedded`, hub ids and paths apart; a local path wins over a hub id."""
    if not isinstance(value, str) or info.context is None or value == "embedded":
        return value
    path = _resolve(value, info.context["folder"])
    if os.path.exists(path):
        if kind := special_file(path):
            raise fault(f"{path} is {kind}", "name a folder, or a .safetensors file")
        # "./models/mine" stays recognizable as a path, "models/mine" would read as a hub id
        return str(path) if path.is_absolute() else f"./{path}"
    if value.startswith((".", "/", "~")) or value.endswith((".safetensors", ".ckpt")):
        raise fault(f"no such folder or file: {path}", _cure(path, value, info.context["folder"]))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        known = suggestion(value, ["embedded"])
        cure = known or "write embedded, a hub id (owner/name), or the path of a folder or file"
        raise fault(f"no base is called {value!r}", cure)
    return str(value)


def _resolve(value: str | Path, folder: Path) -> Path:
    """Join and tidy, but stay relative: adapter headers are shared, home folders are not."""
    _check(value)
    start = Path() if isinstance(value, TypedText) else folder
    return as_stored(Path(os.path.normpath(start / os.path.expanduser(value))))


def _check(value: str | Path) -> None:
    try:
        check_path(str(value))
    except Unreadable as error:
        raise fault(error.found, error.cure) from None


def _cure(path: Path, value: str | Path, folder: Path) -> str:
    if "examples/data" in path.as_posix():
        return "draw the example pairs first: `python examples/make_pairs.py`"
    siblings = (
        os.listdir(path.parent)
        if os.path.isdir(path.parent) and os.access(path.parent, os.R_OK)
        else []
    )
    start = (
        "the working directory"
        if isinstance(value, TypedText)
        else f"the recipe's folder, {folder.absolute()}"
    )
    return suggestion(path.name, siblings) or f"create it or mend the path, which starts at {start}"
