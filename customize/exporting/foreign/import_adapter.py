"""Read an adapter that another program made into one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from customize.adapters.file import AdapterFile
from customize.adapters.header import Header, Taught, library_versions
from customize.adapters.open_safetensors import open_safetensors
from customize.errors import AdapterFileError
from customize.exporting.changes import Changes
from customize.exporting.foreign.check_base import check_fit, for_editing
from customize.exporting.foreign.check_changes import check_changes
from customize.exporting.foreign.read import (
    Found,
    check_types,
    describe,
    foreign_file,
    model_of,
    read,
    text_width,
    usual_base,
)
from customize.exporting.foreign.recognize import foreign, recognize
from customize.exporting.foreign.starts import take_off_starts
from customize.exporting.formats.embeddings import from_embedding


def import_adapter(
    path: Path,
    base_name: str | None = None,
    *,
    words: Sequence[tuple[str, Path | None]] = (),
    drop_biases: bool = False,
) -> tuple[AdapterFile, list[tuple[str, str]]]:
    """Read `path` into an adapter for a base, and say what was read as rows of name and text.

    Without `base_name` it is the usual one for the file's shapes. `words` names words and their
    embedding files, None for `path` itself. Raises AdapterFileError, naming what a foreign file is,
    and BaseModelError.
    """
    from customize.exporting.formats.native import to_native
    from customize.families.base import resolve_base
    from customize.families.loading.layer_weights import BaseWeights

    found = read_importable(path, words=words, drop_biases=drop_biases)
    base = resolve_base(base_name or name_of_base(path, found.changes))
    weights = BaseWeights(base)
    changes, zeros = for_editing(found.changes, weights, base)
    check_fit(path, changes, weights, base)
    try:
        changes = take_off_starts(changes, weights)
    except AdapterFileError as error:
        raise AdapterFileError(f"{path}: {error}") from None
    header = Header(
        family=base.family,
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        method="imported",
        concepts=_concepts(path, found.changes),
        versions=library_versions(),
        training={"imported_from": path.name, "layout": f"{found.layout}, {found.kind}"},
    )
    adapter = AdapterFile(header, to_native(changes, weights))
    facts = [*describe(found), ("base", f"{base.name} ({base.fingerprint[:12]})")]
    if zeros:
        told = f"made for a text-to-image model: zeros for the {zeros} channels of the source"
        facts.append(("first layer", told))
    return adapter, facts


def read_importable(
    path: Path, *, words: Sequence[tuple[str, Path | None]] = (), drop_biases: bool = False
) -> Found:
    """Read what an adapter can hold of a file, as far as that needs no base.

    Raises AdapterFileError, also for biases unless they are to be dropped.
    """
    found = _with_words(path, words)
    biases = found.changes.biases
    if biases and not drop_biases:
        raise AdapterFileError(
            f"{path}: it changes the biases of {len(biases)} layers such as {biases[0]}; expected "
            "changes of weights, which is all that adapters hold; add --drop-biases to import the "
            "weights alone"
        )
    if not found.changes.layers and not found.changes.words:
        raise foreign_file(path, "a file of biases alone", "name another file")
    return found


def _with_words(path: Path, words: Sequence[tuple[str, Path | None]]) -> Found:
    """Read the file, and the embedding file of each word."""
    rows = {}
    for word, place in words:
        opened = open_safetensors(place or path)
        if recognize(opened) != "embedding":
            found = recognize(opened) or foreign(opened)[0]
            raise foreign_file(opened.path, f"no embedding but {found}", f"name the file of {word}")
        check_types(opened)
        rows[word] = from_embedding(opened.tensors())
    check_changes(path, Changes(words=rows))
    if rows and any(place is None for _, place in words):
        return Found("embedding", "words", Changes(words=rows))
    found = read(path)
    return replace(found, changes=replace(found.changes, words={**found.changes.words, **rows}))


def name_of_base(path: Path, changes: Changes) -> str:
    """Choose the base that files of these shapes are for; only its own id is certain.

    Raises AdapterFileError where none is.
    """
    width = text_width(changes)
    if width is None:
        for rows in changes.words.values():  # text encoders are read side by side
            width = sum(tensor.shape[1] for tensor in rows.values())
    if base := usual_base(width):
        return base.name
    known = model_of(width)
    what = f"it is for {known}" if known else "its layers do not tell which model it is for"
    raise AdapterFileError(
        f"{path}: {what}; expected one for Stable Diffusion 1, XL or the embedded base; "
        "name the base with --base, or take another file"
    )


def _concepts(path: Path, changes: Changes) -> tuple[Taught, ...]:
    """Name what was taught: the words, else the file."""
    return tuple(
        Taught(word.strip("<>") or word, word, vectors=len(next(iter(rows.values()))))
        for word, rows in changes.words.items()
    ) or (Taught(path.stem[:200] or path.name or "imported"),)
