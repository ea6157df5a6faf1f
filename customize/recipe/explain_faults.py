"""Pydantic's errors about a recipe -> what was found, and its cure, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from customize.recipe.contradictions import Finding
from customize.recipe.paths import suggestion
from customize.recipe.sections import (
    Base,
    Concept,
    ConditioningDropout,
    CrossAttentionKV,
    LowRank,
    PairOptions,
    Preservation,
    Preview,
    Save,
    Section,
    Train,
)
from customize.recipe.yaml_text import Loc, section_of

SECTIONS: Mapping[str, type[Section]] = {
    "base": Base,
    "concepts": Concept,
    "adapter": LowRank,
    "train": Train,
    "conditioning_dropout": ConditioningDropout,
    "preservation": Preservation,
    "pairs": PairOptions,
    "preview": Preview,
    "save": Save,
}
_TOP = (*SECTIONS, "output")

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


def explain(error: ErrorDetails, values: Mapping[str, Any]) -> Finding:
    """Put one of pydantic's errors into words."""
    loc: Loc = error["loc"]
    kind, context = error["type"], error.get("ctx", {})
    if loc[0] == "adapter" and len(loc) > 1:
        loc = ("adapter", *loc[2:])  # pydantic puts the method's name in between
    field, found = _field(loc), f"found {_shown(error['input'])}"
    match kind:
        case "fault":
            return loc, str(context["found"]), str(context["cure"])
        case "extra_forbidden" | "invalid_key":
            return loc, "unknown key", _unknown_key(loc, values)
        case "missing":
            example = field.examples[0] if field and field.examples else "..."
            return loc, "missing", f"add `{error['loc'][-1]}: {example}`"
        case "literal_error":
            return loc, found, _choice(error["input"], context["expected"])
        case "union_tag_invalid":
            method = section_of(values, "adapter").get("method")
            return (
                (*loc, "method"),
                f"found {_shown(method)}",
                _choice(method, context["expected_tags"]),
            )
        case "union_tag_not_found":
            cure = "add `method: cross_attention_kv` or `method: low_rank`"
            return (*loc, "method"), "missing", cure
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = ", ".join(_keys(loc, values))
            return loc, found, f"write a section with keys of its own: {keys}"
        case "string_pattern_mismatch":
            return loc, found, _spelling(loc, field.examples if field else None)
        case _:
            cure = _CURES[kind].format(**context) if kind in _CURES else error["msg"]
            return loc, found, cure


def is_echo(error: ErrorDetails) -> bool:
    """Tell errors that only follow from others.

    They are our own check of the whole, and what a faulty concept leaves missing.
    """
    left_missing = error["type"] == "too_short" and len(error["input"]) > 0
    return not error["loc"] or left_missing or error["type"] == "default_factory_not_called"


def _unknown_key(loc: Loc, values: Mapping[str, Any]) -> str:
    key, keys = str(loc[-1]), _keys(loc[:-1], values)
    if loc[0] == "adapter" and "rank" not in keys and key in LowRank.model_fields:
        return f"{key!r} belongs to method low_rank: remove it, or choose that method"
    elsewhere = [name for name, section in SECTIONS.items() if key in section.model_fields]
    if elsewhere:
        return f"it belongs in section {' or '.join(map(repr, elsewhere))}"
    if close := suggestion(key, keys):
        return close
    if loc[0] == "adapter" and (close := suggestion(key, LowRank.model_fields)):
        return f"{close} that belongs to method low_rank"
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
        case _:
            how = "six hexadecimal digits after #, in quotes"
    return f"write it like {examples[0] if examples else ''}: {how}"


def _shown(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def _field(loc: Loc) -> Any:
    section = SECTIONS.get(str(loc[0]))
    return section.model_fields.get(str(loc[-1])) if section and len(loc) > 1 else None


def _keys(loc: Loc, values: Mapping[str, Any]) -> tuple[str, ...]:
    if not loc:
        return _TOP
    if loc[0] == "adapter" and section_of(values, "adapter").get("method") == "cross_attention_kv":
        return tuple(CrossAttentionKV.model_fields)
    return tuple(SECTIONS[str(loc[0])].model_fields) if str(loc[0]) in SECTIONS else ()
