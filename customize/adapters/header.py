"""The header of an adapter file: where it comes from, what it was taught, how to read its tensors.

It is JSON with a format and a version, so that older programs say "newer" instead of guessing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from customize import __version__
from customize.errors import AdapterFileError
from customize.families.identify import FamilyName

FORMAT, VERSION = "customize-adapter", 1


@dataclass(frozen=True)
class Taught:
    """One concept an adapter knows: its word, if any, and instructions it was taught with."""

    name: str
    word: str | None = None
    initializer: str | None = None
    vectors: int = 1
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """Where an adapter comes from and how to read its tensors.

    `method` is cross_attention_kv or low_rank; `scale` multiplies every low-rank product. `recipe`
    is the recipe as JSON, `pairs` maps each pair's place to the sha256 of its files, `training`
    holds steps, seconds, loss and scores.
    """

    family: FamilyName
    base_name: str
    base_fingerprint: str
    method: str
    rank: int | None = None
    alpha: float | None = None
    decompose: bool = False
    targets: tuple[str, ...] = ()
    text_encoder_rank: int = 0
    concepts: tuple[Taught, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """Return alpha / rank, 1 where either is absent."""
        return self.alpha / self.rank if self.alpha is not None and self.rank else 1.0


_HEADER = TypeAdapter(Header)


def dump_header(header: Header) -> str:
    """Write a header as JSON."""
    facts = _HEADER.dump_python(header, mode="json")
    return json.dumps({"format": FORMAT, "version": VERSION, **facts})


def parse_header(path: Path, text: str) -> Header:
    """Read the JSON of the header of `path`; raises AdapterFileError for a damaged or newer one."""
    try:
        content = json.loads(text)
        if content["format"] == FORMAT and content["version"] > VERSION:
            raise unusable(
                path,
                f"its header is version {content['version']} and this `customize` reads up to "
                f"{VERSION}",
                "update `customize`",
            )
        if content["format"] == FORMAT:
            if content["family"] not in get_args(FamilyName):
                known = ", ".join(get_args(FamilyName))
                found = f"it was made for a base of the family {content['family']!r}"
                raise unusable(path, found, f"update `customize`, which knows {known}")
            return _HEADER.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = f"its header is damaged at {place!r} ({first['msg']})"
    except (ValueError, KeyError, TypeError):
        found = "its header is damaged"
    else:
        found = f"its header says format {content['format']!r}"
    raise unusable(path, found, "save or download it again")


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


def unusable(path: Path, found: str, cure: str) -> AdapterFileError:
    """Word the refusal of a file as found, expected, what to do."""
    return AdapterFileError(
        f"{path}: {found}; expected an adapter that `customize` wrote (.safetensors); {cure}"
    )
