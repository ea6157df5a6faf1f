"""What is compared: a base alone, or a base with adapters in use, by a short name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from customize.adapters.at_base import base_for
from customize.adapters.file import read_header
from customize.adapters.labels import label_of, numbered
from customize.editing import Editor
from customize.editing.options import with_strength
from customize.errors import ScoreError
from customize.families.base import resolve_base
from customize.families.sampling_defaults import own_way

if TYPE_CHECKING:
    from customize.recipe import Recipe

PLUS = "+"
"""Joins adapters that are used together: `dog.safetensors:0.7+brand.safetensors`."""


@dataclass(frozen=True)
class Variant:
    """A base and the adapters used on it together, each with its strength.

    `plain` says every taught word in the words it starts from, also those of other variants;
    `taught` are the words that this one's adapters know.
    """

    label: str
    base: str
    adapters: tuple[tuple[Path, float], ...] = ()
    plain: Mapping[str, str] = field(default_factory=dict[str, str])
    taught: tuple[str, ...] = ()

    def identity(self) -> str:
        """Return a sha256 of the base's weights and own way to edit, the adapters' bytes and their
        strengths.
        """
        base = resolve_base(self.base)
        digest = hashlib.sha256(f"{base.fingerprint} {own_way(base)}".encode())
        for path, strength in self.adapters:
            digest.update(hashlib.sha256(path.read_bytes()).digest() + f"{strength!r}".encode())
        return digest.hexdigest()

    def put_on(self, editor: Editor) -> Editor:
        """Let `editor`, which has the variant's base, edit as the variant does."""
        editor.unload()
        for path, strength in self.adapters:
            editor.load(path, strength)
        return editor


def compared(
    bases: Sequence[str],
    adapters: Sequence[Sequence[tuple[Path, float]]],
    *,
    alone: bool = True,
    recipe: Recipe | None = None,
) -> list[Variant]:
    """List what to compare: every base alone, and with each of the groups of adapters in turn.

    No bases means the first adapter's own, else the recipe's, else the embedded one. Raises
    AdapterFileError, BaseModelError, and ScoreError where nothing is left to compare.
    """
    headers = {path: read_header(path) for group in adapters for path, _ in group}
    if not bases:
        named = [recipe.base.name] if recipe else ["embedded"]
        bases = [base_for(header) for header in headers.values()][:1] or named
    for base in bases:
        resolve_base(base)
    words = [(c.word, c.initializer) for header in headers.values() for c in header.concepts]
    words += [(c.word, c.initializer) for c in recipe.concepts] if recipe else []
    plain = {word: start or word.strip("<>").replace("-", " ") for word, start in words if word}
    found: list[Variant] = []
    for base in bases:
        name = Path(base).name if Path(base).exists() else base
        where = f" on {name}" if len(bases) > 1 else ""
        if alone:
            found.append(Variant(f"{name} alone", base, plain=plain))
        for group in adapters:
            label = PLUS.join(_label(path, strength) for path, strength in group) + where
            known = tuple(c.word for path, _ in group for c in headers[path].concepts if c.word)
            found.append(Variant(label, base, tuple(group), plain, known))
    if not found:
        raise ScoreError(
            "nothing to compare: no adapter was named and the base alone is left out; expected at "
            "least one of them; name an adapter (--adapter), or leave --adapters-only out"
        )
    labels = numbered(variant.label for variant in found)
    return [replace(variant, label=label) for variant, label in zip(found, labels, strict=True)]


def group_of(text: str) -> list[tuple[Path, float]]:
    """Read adapters joined by `+`, each with its strength; a plus in a file's name stays there."""
    if Path(text).exists():
        return [(Path(text), 1.0)]
    return [with_strength(part) for part in text.split(PLUS)]


def _label(path: Path, strength: float) -> str:
    """Name an adapter, with its strength where that is not 1."""
    return label_of(path) if strength == 1 else f"{label_of(path)}:{strength:g}"
