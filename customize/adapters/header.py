"""The header of an adapter file: where it comes from, what it was taught, how to read its tensors.

It is JSON with a format and a version, so that older programs say "newer" instead of guessing.
Files come from strangers: every text has a greatest length, every number a range.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from customize import __version__
from customize.adapters.header_facts import (
    check_recipe,
    check_training,
    shareable,
    shareable_recipe,
)
from customize.errors import AdapterFileError
from customize.families.identify import FamilyName
from customize.files.parse import MOST_CONFIG_BYTES, parse_json
from customize.files.text import finding

FORMAT, VERSION = "customize-adapter", 1
MOST_VECTORS = 75
"""Rows of a word at most: a CLIP text has 77 positions, and two are its start and end."""

Method = Literal["cross_attention_kv", "low_rank", "imported", "merged"]
_Short = Annotated[str, Field(max_length=200)]
_Named = Annotated[str, Field(min_length=1, max_length=200)]
_Word = Annotated[str, AfterValidator(lambda word: _checked_word(word))]
_Text = Annotated[str, Field(max_length=10_000)]
_Rank = Annotated[int, Field(ge=1, le=65_536)]


def is_word(text: str) -> bool:
    """Tell a word that an adapter can teach: 1 to 64 letters that can be seen, and no spaces."""
    return 1 <= len(text) <= 64 and text.isprintable() and not any(map(str.isspace, text))


def _checked_word(word: str) -> str:
    if not is_word(word):
        raise ValueError("it is no word of at most 64 letters without spaces")
    return word


@dataclass(frozen=True)
class Taught:
    """One concept an adapter knows: its word, if any, and instructions it was taught with."""

    name: _Named
    word: _Word | None = None
    initializer: _Short | None = None
    vectors: Annotated[int, Field(ge=1, le=MOST_VECTORS)] = 1
    instructions: Annotated[tuple[_Text, ...], Field(max_length=100_000)] = ()


@dataclass(frozen=True)
class Header:
    """Where an adapter comes from and how to read its tensors.

    `scale` multiplies every low-rank product. `recipe` is the recipe as JSON, `pairs` maps each
    pair's place to the sha256 of its files, `training` holds steps, seconds, loss and scores.
    """

    family: FamilyName
    base_name: _Named
    base_fingerprint: _Short
    method: Method
    rank: _Rank | None = None
    alpha: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    decompose: bool = False
    targets: Annotated[tuple[_Short, ...], Field(max_length=1000)] = ()
    text_encoder_rank: Annotated[int, Field(ge=0, le=65_536)] = 0
    concepts: Annotated[tuple[Taught, ...], Field(max_length=1000)] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[_Short, _Short] = field(default_factory=dict)
    pairs: Annotated[dict[_Text, _Short], Field(max_length=100_000)] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """Return alpha / rank, 1 where either is absent."""
        return self.alpha / self.rank if self.alpha is not None and self.rank else 1.0


_HEADER = TypeAdapter(Header)


def dump_header(header: Header) -> str:
    """Write a header as JSON, without absolute paths: adapters are shared, home folders are not."""
    facts = _HEADER.dump_python(header, mode="json")
    facts["base_name"] = shareable(header.base_name)
    facts["recipe"] = shareable_recipe(facts["recipe"])
    return json.dumps({"format": FORMAT, "version": VERSION, **facts})


def parse_header(path: Path, text: str) -> Header:
    """Read the JSON of the header of `path`; raises AdapterFileError for a damaged or newer one."""
    try:
        content = parse_json(text, MOST_CONFIG_BYTES)
        if not isinstance(content, dict) or not {"format", "version"} <= content.keys():
            raise ValueError("it says no format and version")
    except ValueError as error:
        raise unusable(path, f"its header is damaged: {finding(error)}") from None
    if content["format"] != FORMAT:
        raise unusable(path, f"its header says format {str(content['format'])[:80]!r}")
    match content["version"]:
        case int(version) if 1 <= version <= VERSION and version is not True:
            pass
        case int(version) if version > VERSION:
            found = f"its header is version {version} and this `customize` reads up to {VERSION}"
            raise unusable(path, found, "update `customize`")
        case version:
            raise unusable(path, f"its header says version {str(version)[:80]!r}")
    if (method := content.get("method")) not in get_args(Method):
        known = ", ".join(get_args(Method))
        found = f"its header says method {str(method)[:80]!r}, and known are {known}"
        raise unusable(path, found, "update `customize`, or save it again")
    if (family := content.get("family")) not in get_args(FamilyName):
        known = ", ".join(get_args(FamilyName))
        found = f"it was made for a base of the family {str(family)[:80]!r}"
        raise unusable(path, found, f"update `customize`, which knows {known}")
    try:
        header = _HEADER.validate_json(text, strict=True)
        check_recipe(header.recipe)
        check_training(header.training)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = first["msg"].removeprefix("Value error, ")
        raise unusable(path, f"its header is damaged at {place[:200]!r} ({found})") from None
    except ValueError as error:
        raise unusable(path, f"its header is damaged at {error}") from None
    return header


def library_versions() -> dict[str, str]:
    """Return the versions of what shapes an adapter, for its header."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"customize": __version__}
    for name in ("torch", "diffusers", "transformers", "peft", "bitsandbytes"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def unusable(path: Path, found: str, cure: str = "save or download it again") -> AdapterFileError:
    """Word the refusal of a file as found, expected, what to do."""
    return AdapterFileError(
        f"{path}: {found}; expected an adapter that `customize` wrote (.safetensors); {cure}"
    )
