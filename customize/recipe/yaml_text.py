"""YAML text and command-line overrides -> plain values that remember where each was written.

Plain scalars follow YAML 1.2 (`no` and `on` are words, `2e-3` is a number): PyYAML's own 1.1 rules
would turn `precision: no` into false and `learning_rate: 2e-3` into text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import yaml

from customize.errors import Fault
from customize.files.parse import compose_yaml
from customize.files.text import Unreadable, check_text, read_text
from customize.recipe.paths import TypedText, suggestion

COMMAND_LINE = 1_000_000_000
"""Stands for the line number of an override, so that its faults come last."""

_NUMBER = re.compile(r"[-+]?(\d+(_\d+)*(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?")


def section_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the section called `name`, empty where there is none or something else."""
    section = values.get(name)
    return cast("dict[str, Any]", section) if isinstance(section, dict) else {}


@dataclass(frozen=True)
class RecipeText:
    """Plain values of one recipe, the line each was written on, and the faults found so far.

    Places are dotted: `concepts.0.word`.
    """

    file: Path
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[str, int] = field(default_factory=dict[str, int])
    faults: list[tuple[int, Fault]] = field(default_factory=list[tuple[int, Fault]])

    def line(self, place: str) -> int:
        """Return the line of `place`, or of the nearest thing around it that was written."""
        while place not in self.lines and place:
            place = place.rpartition(".")[0]
        return self.lines.get(place, 0)

    def add_fault(self, fault: Fault, line: int | None = None) -> None:
        """Note a fault; its place gets file and line, `recipes/x.yaml:12 adapter.rank`."""
        line = self.line(fault.place) if line is None else line
        origin = f"{self.file}:{line}" if line else str(self.file)
        place = f"{'--set' if line == COMMAND_LINE else origin} {fault.place}".strip()
        self.faults.append((line, replace(fault, place=place)))

    def faults_in_order(self) -> list[Fault]:
        """List the faults as they stand in the file, those of the command line last."""
        return [fault for _, fault in sorted(self.faults, key=lambda noted: noted[0])]


def read_recipe_text(file: Path, overrides: Sequence[str], example: str) -> RecipeText:
    """Read `file` and apply `overrides` such as `train.steps=50`; faults are noted, not raised.

    `example` names a recipe of this kind for messages.
    """
    text = RecipeText(file)
    try:
        node = compose_yaml(read_text(file))
    except Unreadable as error:
        cure = _cure(file, error, example)
        text.add_fault(Fault("", error.found, cure), line=error.line)
        return text
    if not isinstance(node, yaml.MappingNode):
        cure = f"start from one in recipes/, such as {example}"
        text.add_fault(Fault("", "no sections in it", cure))
        return text
    text.values.update(_read(node, "", text, from_file=True, seen=set()))
    for override in overrides:
        _apply(override, text)
    for empty in [key for key, value in text.values.items() if value is None]:
        del text.values[empty]  # a section whose keys are all commented out means its defaults
    return text


def _read(node: yaml.Node, place: str, text: RecipeText, *, from_file: bool, seen: set[int]) -> Any:
    """Turn a YAML node into plain values, noting lines, doubled keys, aliases and tags."""
    line = node.start_mark.line + 1 if from_file else COMMAND_LINE
    if id(node) in seen:
        text.add_fault(Fault(place, "an alias (`*name`)", "write the value out instead"), line)
        return None
    seen.add(id(node))
    tag = node.tag
    if not tag.startswith("tag:yaml.org,2002:") or "/" in tag:
        cure = "remove it: recipes hold plain values only"
        text.add_fault(Fault(place, f"tag {tag!r}", cure), line)
        return None
    if isinstance(node, yaml.ScalarNode):
        try:
            check_text(cast("str", node.value))
        except Unreadable as error:
            text.add_fault(Fault(place, error.found, error.cure), line)
            return None
        return _scalar(node, from_file=from_file)
    if isinstance(node, yaml.SequenceNode):
        items = cast("list[yaml.Node]", node.value)
        for index, item in enumerate(items):
            line = item.start_mark.line + 1 if from_file else COMMAND_LINE
            text.lines[_inside(place, index)] = line
        return [
            _read(item, _inside(place, i), text, from_file=from_file, seen=seen)
            for i, item in enumerate(items)
        ]
    values: dict[str, Any] = {}
    for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        inside = _inside(place, key)
        line = key_node.start_mark.line + 1 if from_file else COMMAND_LINE
        if key in values:
            first = text.lines[inside]
            found = "given twice" if first == line else f"given twice, first on line {first}"
            text.add_fault(Fault(inside, found, "keep one of them"), line)
        text.lines[inside] = line
        values[key] = _read(value_node, inside, text, from_file=from_file, seen=seen)
    return values


def _inside(place: str, key: str | int) -> str:
    return f"{place}.{key}" if place else str(key)


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
    place = key.strip()
    parts = [int(part) if part.isdecimal() else part for part in place.split(".")]
    if not equals or "" in parts:
        cure = "write it as key=value, such as train.steps=50"
        text.add_fault(Fault("", f"override {override!r}", cure), COMMAND_LINE)
        return
    try:
        node = compose_yaml(written)
    except Unreadable as error:
        text.add_fault(Fault(place, error.found, error.cure), line=COMMAND_LINE)
        return
    if (parent := _descend(parts, text)) is None:
        return
    for old in [known for known in text.lines if f"{known}.".startswith(f"{place}.")]:
        del text.lines[old]
    text.lines[place] = COMMAND_LINE
    read = None if node is None else _read(node, place, text, from_file=False, seen=set())
    parent[parts[-1]] = read


def _descend(parts: Sequence[str | int], text: RecipeText) -> Any:
    """Return the dict or list that holds the last of `parts`, making sections on the way.

    None after a fault.
    """
    holder, place, whole = cast("Any", text.values), "", ".".join(map(str, parts))
    for depth, part in enumerate(parts):
        kind = cast("type[Any]", type(holder))
        if kind is list and not (isinstance(part, int) and part < len(holder)):
            found = f"no item {part!r} in a list of {len(holder)}"
            cure = "name items by number, the first is 0"
            text.add_fault(Fault(whole, found, cure), COMMAND_LINE)
            return None
        if kind not in (dict, list):
            found = f"{place} holds {holder!r}, no section"
            text.add_fault(Fault(whole, found, f"set {place} itself"), COMMAND_LINE)
            return None
        if depth == len(parts) - 1:
            break
        place = _inside(place, part)
        below: Any = holder[part] if kind is list else holder.get(part)
        if below is None:
            below, text.lines[place] = {}, COMMAND_LINE
        elif place == "base" and isinstance(below, str):
            below = {"name": below}
        holder[part] = below
        holder = below
    return holder


def _cure(file: Path, error: Unreadable, example: str) -> str:
    """Say what to do about a recipe that cannot be read, nearer than the reader knows it."""
    if os.path.isfile(file):
        return error.cure
    recipes = [] if os.path.exists(file) else [entry.name for entry in file.parent.glob("*.yaml")]
    return suggestion(file.name, recipes) or f"name a recipe file, such as {example}"
