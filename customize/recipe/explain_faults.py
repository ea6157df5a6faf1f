"""Pydantic's errors about a recipe -> faults in plain words: what was found, and its cure.

What is known where is read from the recipe's own class, whichever of the three kinds it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from customize.errors import Fault
from customize.recipe.paths import suggestion
from customize.recipe.sections import Section
from customize.recipe.yaml_text import section_of

Loc = tuple[str | int, ...]
"""Where pydantic found a fault: `("concepts", 0, "word")`."""

_CURES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "int_type": "write a whole number, without quotes",
    "float_type": "write a number, without quotes",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "string_type": "write a text, in quotes if it looks like a number or starts with #",
    "tuple_type": "write a list: each item on its own line after `- `",
    "too_short": "list at least {min_length}",
}


def explain(error: ErrorDetails, values: Mapping[str, Any], kind: type[Section]) -> Fault:
    """Put one of pydantic's errors about a `kind` of recipe into words."""
    loc = _without_tags(error["loc"], kind)
    place, shown = ".".join(map(str, loc)), f"found {_shown(error['input'])}"
    context, field = error.get("ctx", {}), _field(loc, kind)
    match error["type"]:
        case "fault":
            return Fault(place, str(context["found"]), str(context["cure"]))
        case "extra_forbidden" | "invalid_key":
            return Fault(place, "unknown key", _unknown_key(loc, values, kind))
        case "missing":
            example = field.examples[0] if field and field.examples else "..."
            return Fault(place, "missing", f"add `{loc[-1]}: {example}`")
        case "literal_error":
            return Fault(place, shown, _choice(error["input"], context["expected"]))
        case "union_tag_invalid":
            found = section_of(values, place).get("method")
            cure = _choice(found, context["expected_tags"])
            return Fault(f"{place}.method", f"found {_shown(found)}", cure)
        case "union_tag_not_found":
            cure = "add `method: cross_attention_kv` or `method: low_rank`"
            return Fault(f"{place}.method", "missing", cure)
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = ", ".join(_keys(loc, values, kind))
            return Fault(place, shown, f"write a section with keys of its own: {keys}")
        case "string_pattern_mismatch":
            return Fault(place, shown, _spelling(loc, field.examples if field else None))
        case known if known in _CURES:
            return Fault(place, shown, _CURES[known].format(**context))
        case _:
            return Fault(place, shown, error["msg"])


def is_echo(error: ErrorDetails) -> bool:
    """Tell errors that only follow from others.

    They are our own check of the whole, and what a faulty concept leaves missing.
    """
    left_missing = error["type"] == "too_short" and len(error["input"]) > 0
    return not error["loc"] or left_missing or error["type"] == "default_factory_not_called"


def _unknown_key(loc: Loc, values: Mapping[str, Any], kind: type[Section]) -> str:
    key, keys = str(loc[-1]), _keys(loc[:-1], values, kind)
    others = {
        name: section.model_fields["method"].default
        for section in _sections(loc[:-1], kind)
        if "method" in section.model_fields
        for name in section.model_fields
        if name not in keys
    }
    if key in others:
        return f"{key!r} belongs to method {others[key]}: remove it, or choose that method"
    elsewhere = [name for name in kind.model_fields if _holds(_sections((name,), kind), key)]
    if elsewhere:
        return f"it belongs in section {' or '.join(map(repr, elsewhere))}"
    if close := suggestion(key, keys):
        return close
    if close := suggestion(key, others):
        return f"{close} that belongs to method {next(iter(others.values()))}"
    return f"known here: {', '.join(keys)}"


def _choice(found: Any, expected: str) -> str:
    names = [name.strip("' ") for name in expected.replace(" or ", ", ").split(",")]
    return f"{suggestion(str(found), names)} the choices are {', '.join(names)}".strip()


def _spelling(loc: Loc, examples: list[Any] | None) -> str:
    match loc[-1]:
        case "name":
            how = "lower-case letters, digits, - and _, no spaces"
        case "word":
            how = "lower case in angle brackets, which keeps it apart from every ordinary word"
        case "initializer":
            how = "one plain word"
        case "url":
            how = "a web address that begins with http:// or https://"
        case _:
            how = "six hexadecimal digits after #, in quotes"
    return f"write it like {examples[0] if examples else ''}: {how}"


def _shown(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def _field(loc: Loc, kind: type[Section]) -> FieldInfo | None:
    name = str(loc[-1])
    fields = (section.model_fields.get(name) for section in _sections(loc[:-1], kind))
    return next(filter(None, fields), None)


def _keys(loc: Loc, values: Mapping[str, Any], kind: type[Section]) -> tuple[str, ...]:
    """List the keys of the section at `loc`; where a method is chosen, of that one."""
    keys: tuple[str, ...] = ()
    for section in (sections := _sections(loc, kind)):
        keys = tuple(section.model_fields)
        method = section_of(values, str(loc[0])).get("method") if len(sections) > 1 else None
        if method is not None and section.model_fields["method"].default == method:
            break
    return keys


def _sections(loc: Loc, kind: type[Section]) -> tuple[type[Section], ...]:
    """Return the kinds of section that may stand at `loc`: several where a method is chosen."""
    found = (kind,)
    for part in loc:
        if isinstance(part, str):  # a number only counts the items of a list
            fields = [section.model_fields.get(part) for section in found]
            found = tuple(inner for field in fields if field for inner in _named(field.annotation))
    return found


def _named(annotation: Any) -> tuple[type[Section], ...]:
    """List the sections that a type names, such as both of `A | B`, or that of `tuple[A, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(inner for part in get_args(annotation) for inner in _named(part))


def _holds(sections: Sequence[type[Section]], key: str) -> bool:
    return any(key in section.model_fields for section in sections)


def _without_tags(loc: Loc, kind: type[Section]) -> Loc:
    """Strike the method's name, which pydantic puts between a section and its key."""
    return (loc[0], *loc[2:]) if len(_sections(loc[:1], kind)) > 1 and len(loc) > 1 else loc
