"""YAML text and command-line overrides -> plain values that remember where each was written.

Plain scalars follow YAML 1.2 (`no` and `on` are words, `2e-3` is a number): PyYAML's own 1.1 rules
would turn `precision: no` into false and `learning_rate: 2e-3` into text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from customize.errors import Fault
from customize.recipe.paths import TypedText, suggestion

Loc = tuple[str | int, ...]
"""Where a value sits: `("concepts", 0, "word")`."""

COMMAND_LINE = 1_000_000_000
"""Stands for the line number of an override, so that its faults come last."""

# PyYAML lets the last two through for escapes such as "\UFFFFFFFF"
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, OverflowError)
_EXAMPLE = "such as recipes/my_dog.yaml"
_NUMBER = re.compile(r"[-+]?(\d+(_\d+)*(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?")


def section_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the section called `name`, empty where there is none or something else."""
    section = values.get(name)
    return cast("dict[str, Any]", section) if isinstance(section, dict) else {}


@dataclass(frozen=True)
class RecipeText:
    """Plain values of one recipe, the line each was written on, and the faults found so far."""

    file: Path
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[Loc, int] = field(default_factory=dict[Loc, int])
    faults: list[tuple[int, Fault]] = field(default_factory=list[tuple[int, Fault]])

    def line(self, loc: Loc) -> int:
        """Return the line of `loc`, or of the nearest thing around it that was written."""
        return next(
            (self.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in self.lines), 0
        )

    def add_fault(self, loc: Loc, found: str, cure: str, line: int | None = None) -> None:
        """Note a fault at `loc` with its place in words, `recipes/x.yaml:12 adapter.rank`."""
        line = self.line(loc) if line is None else line
        origin = f"{self.file}:{line}" if line else str(self.file)
        place = f"{'--set' if line == COMMAND_LINE else origin} {'.'.join(map(str, loc))}"
        self.faults.append((line, Fault(place.strip(), found, cure)))


def read_recipe_text(file: Path, overrides: Sequence[str]) -> RecipeText:
    """Read `file` and apply `overrides` such as `train.steps=50`; faults are noted, not raised."""
    text = RecipeText(file)
    try:
        node = _compose(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        text.add_fault((), *_unreadable(file, error))
        return text
    except _NOT_YAML as error:
        text.add_fault((), *_not_yaml(error), line=_error_line(error))
        return text
    if not isinstance(node, yaml.MappingNode):
        text.add_fault((), "no sections in it", f"start from one in recipes/, {_EXAMPLE}")
        return text
    text.values.update(_read(node, (), text, from_file=True, seen=set()))
    for override in overrides:
        _apply(override, text)
    for empty in [key for key, value in text.values.items() if value is None]:
        del text.values[empty]  # a section whose keys are all commented out means its defaults
    return text


def _compose(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=yaml.SafeLoader)  # pyright: ignore


def _read(node: yaml.Node, loc: Loc, text: RecipeText, *, from_file: bool, seen: set[int]) -> Any:
    """Turn a YAML node into plain values, noting lines, doubled keys, aliases and tags."""
    line = node.start_mark.line + 1 if from_file else COMMAND_LINE
    if id(node) in seen:
        text.add_fault(loc, "an alias (`*name`)", "write the value out instead", line)
        return None
    seen.add(id(node))
    tag = node.tag
    if not tag.startswith("tag:yaml.org,2002:") or "/" in tag:
        text.add_fault(loc, f"tag {tag!r}", "remove it: recipes hold plain values only", line)
        return None
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, from_file=from_file)
    if isinstance(node, yaml.SequenceNode):
        items = cast("list[yaml.Node]", node.value)
        for index, item in enumerate(items):
            text.lines[*loc, index] = item.start_mark.line + 1 if from_file else COMMAND_LINE
        return [
            _read(item, (*loc, i), text, from_file=from_file, seen=seen)
            for i, item in enumerate(items)
        ]
    values: dict[str, Any] = {}
    for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        line = key_node.start_mark.line + 1 if from_file else COMMAND_LINE
        if key in values:
            first = text.lines[*loc, key]
            found = "given twice" if first == line else f"given twice, first on line {first}"
            text.add_fault((*loc, key), found, "keep one of them", line)
        text.lines[*loc, key] = line
        values[key] = _read(value_node, (*loc, key), text, from_file=from_file, seen=seen)
    return values


def _scalar(node: yaml.ScalarNode, *, from_file: bool) -> str | int | float | bool | None:
    value = cast("str", node.value)
    if node.style is None:
        if value.lower() in ("", "~", "null"):
            return None
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        if len(value) <= 40 and (number := _NUMBER.fullmatch(value)):
            return float(value) if number[3] or "e" in value.lower() or "." in value else int(value)
    return value if from_file else TypedText(value)


def _apply(override: str, text: RecipeText) -> None:
    """Put one `dotted.key=value` into the values; the value is YAML."""
    key, equals, written = override.partition("=")
    loc: Loc = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    if not equals or "" in loc:
        cure = "write it as key=value, such as train.steps=50"
        text.add_fault((), f"override {override!r}", cure, COMMAND_LINE)
        return
    try:
        node = _compose(written)
    except _NOT_YAML as error:
        text.add_fault(loc, *_not_yaml(error), line=COMMAND_LINE)
        return
    if (parent := _descend(loc, text)) is None:
        return
    for old in [known for known in text.lines if known[: len(loc)] == loc]:
        del text.lines[old]
    text.lines[loc] = COMMAND_LINE
    parent[loc[-1]] = None if node is None else _read(node, loc, text, from_file=False, seen=set())


def _descend(loc: Loc, text: RecipeText) -> Any:
    """Return the dict or list that holds `loc`, making sections on the way; None after a fault."""
    holder: Any = text.values
    for depth, part in enumerate(loc):
        kind = cast("type[Any]", type(holder))
        if kind is list and not (isinstance(part, int) and part < len(holder)):
            found = f"no item {part!r} in a list of {len(holder)}"
            text.add_fault(loc, found, "name items by number, the first is 0", COMMAND_LINE)
            return None
        if kind not in (dict, list):
            place = ".".join(map(str, loc[:depth]))
            found = f"{place} holds {holder!r}, no section"
            text.add_fault(loc, found, f"set {place} itself", COMMAND_LINE)
            return None
        if depth == len(loc) - 1:
            break
        below: Any = holder[part] if kind is list else holder.get(part)
        if below is None:
            below, text.lines[loc[: depth + 1]] = {}, COMMAND_LINE
        elif loc[: depth + 1] == ("base",) and isinstance(below, str):
            below = {"name": below}
        holder[part] = below
        holder = below
    return holder


def _unreadable(file: Path, error: OSError | UnicodeDecodeError) -> tuple[str, str]:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text", "save it as UTF-8, or name a YAML recipe"
    if os.path.isdir(file):
        return "a folder", f"name a recipe file, {_EXAMPLE}"
    if not os.path.exists(file):
        recipes = [entry.name for entry in file.parent.glob("*.yaml")]
        return "no such file", suggestion(file.name, recipes) or f"name a recipe file, {_EXAMPLE}"
    return f"cannot be read ({error.strerror})", "check its permissions"


def _not_yaml(error: Exception) -> tuple[str, str]:
    if isinstance(error, RecursionError):
        return "nested too deeply", "a recipe has sections and keys, nothing deeper"
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"not YAML: {next(iter(str(error).splitlines()), '')}", "remove the odd characters"
    if "\\t" in str(error.problem):
        return "not YAML: a tab", "indent with spaces"
    return f"not YAML: {error.problem}", "check indentation, colons and quotes here and just above"


def _error_line(error: Exception) -> int:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return mark.line + 1 if mark else 0
