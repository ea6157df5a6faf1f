"""JSON, YAML and TOML -> plain values, none of them more than a reader can hold.

The only door for such text from outside, whoever wrote it. What is wrong is raised as `Unreadable`
with its cure.
"""

from __future__ import annotations

import errno
import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any, cast

import yaml

from customize.files.text import BACKSLASHES, DEEPEST, Unreadable, check_values, read_text

MEND = "mend it there"
MOST_CONFIG_BYTES = 2**24
"""Of a file that a program writes: a model's config, figures measured earlier."""
MOST_DIGITS = 40
MOST_VALUES = 20_000
"""In a YAML file, aliases counted as often as they are named: a few seconds of parsing."""


def load_json(path: Path, most: int = MOST_CONFIG_BYTES) -> Any:
    """Read and parse a JSON file; raises FileNotFoundError and Unreadable, a ValueError."""
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    return parse_json(read_text(path, most))


def parse_json(text: str | bytes, most: int | None = None) -> Any:
    """Parse JSON strictly: no key twice, no NaN, no endless number, no half of a character.

    Bytes are read as UTF-8; more than `most` of them, or characters, are refused. Raises
    Unreadable, a ValueError.
    """
    if most is not None and len(text) > most:
        raise Unreadable(f"more than {most / 1e6:g} MB of JSON", "that is more than it ever needs")
    try:
        value = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except json.JSONDecodeError as error:
        cure = BACKSLASHES if "escape" in error.msg else MEND
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        where = f"{error.msg} at {line}column {error.colno}"
        raise Unreadable(f"not JSON ({where})", cure, error.lineno) from None
    except RecursionError:
        found = f"values nested more than {DEEPEST} deep"
        raise Unreadable(found, "write it flatter") from None
    check_values(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = " ".join(str(error).split())
        slashes = any(word in said for word in ("'\\'", "hex value", "Illegal character '\\"))
        cure = BACKSLASHES if slashes else "mend the file at that line"
        raise Unreadable(f"not TOML ({said})", cure) from None
    except (RecursionError, ValueError) as error:
        raise Unreadable(f"not TOML ({type(error).__name__})", "write it again") from None
    check_values(value)
    return value


def parse_yaml(text: str) -> Any:
    """Parse YAML by PyYAML's safe rules; aliases may be used, but not to say more than is read."""
    node = compose_yaml(text)
    if node is None:
        return None
    _count(node, {})
    try:
        value = cast("Any", yaml.SafeLoader("").construct_document(node))
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise Unreadable(f"not YAML ({said})", "mend the file", _line(error)) from None
    check_values(value)
    return value


def compose_yaml(text: str) -> yaml.Node | None:
    """Parse YAML to nodes, which know their lines and tags; None where there is nothing."""
    try:
        return cast("yaml.Node | None", yaml.compose(text, Loader=_Counting))  # pyright: ignore
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("nested too deeply", "write it flatter") from None
    except yaml.MarkedYAMLError as error:
        said, cure = str(error.problem), "check indentation, colons and quotes here and just above"
        if "escape" in said:
            cure = BACKSLASHES
        elif "\\t" in said:
            said, cure = "a tab", "indent with spaces"
        raise Unreadable(f"not YAML: {said}", cure, _line(error)) from None
    except (ValueError, OverflowError):  # "\UFFFFFFFF" is no character
        raise Unreadable("not YAML: an escape that is no character", BACKSLASHES) from None
    except yaml.YAMLError as error:
        first = next(iter(str(error).splitlines()), "")
        raise Unreadable(f"not YAML: {first}", "remove the odd characters") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise Unreadable(f"the key {double!r:.60} given twice", "keep one of them")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:  # Python refuses longer ones in words of its own
        raise Unreadable(f"a number of {len(digits)} digits", "write a shorter one")
    return int(digits)


def _float(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        raise Unreadable(f"the number {written[:40]}", "write one that is not beyond all bounds")
    return value


def _constant(name: str) -> float:
    raise Unreadable(f"{name}, which is no number of JSON", "write a number")


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node, aliases each time; refuses too many, circles, doubled keys."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if known.setdefault(id(node), 0):
        return known[id(node)]
    line = node.start_mark.line + 1
    inside = cast("list[Any]", node.value)
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in inside if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            double = next(key for key in keys if keys.count(key) > 1)
            raise Unreadable(f"the key {double!r:.60} given twice", "keep one of them", line)
        inside = [each for pair in inside for each in pair]
    total = 1
    for each in inside:
        if known.get(id(each)) == 0:
            raise Unreadable("an alias to what it stands in", "write the value out", line)
        total += _count(each, known)
        if total > MOST_VALUES:
            raise _too_many(line)
    known[id(node)] = total
    return total


class _Counting(yaml.SafeLoader):
    """A loader that gives up on a text of too many values before it is read to its end."""

    _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._nodes += 1
        if self._nodes > MOST_VALUES:
            raise _too_many(self.line + 1)
        return super().compose_node(parent, index)  # pyright: ignore


def _too_many(line: int) -> Unreadable:
    found = f"more than {MOST_VALUES} values, aliases counted each time"
    return Unreadable(found, "say it in fewer, or in a table (.jsonl)", line)


def _line(error: Exception) -> int:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return mark.line + 1 if mark else 0
