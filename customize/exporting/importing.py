"""Read an adapter that another program made into one of ours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from customize.adapters.file import AdapterFile
from customize.adapters.header import Header, Taught, library_versions
from customize.errors import AdapterFileError, Fault, FaultsError
from customize.exporting import comfyui, custom_diffusion, diffusers_lora, kohya, peft_folder
from customize.exporting.changes import Change, Changes, Decomposed, Full, LowRank, Weights
from customize.exporting.embeddings import from_embedding, word_of
from customize.exporting.opening_files import open_file
from customize.exporting.recognizing import Layout, foreign, kind_of, recognize

if TYPE_CHECKING:
    from customize.families.bases import Base

Reader = Callable[[Mapping[str, Tensor], Mapping[str, str]], Changes]
READERS: Mapping[Layout, Reader] = {
    "kohya": kohya.from_kohya,
    "diffusers": diffusers_lora.from_diffusers,
    "peft": peft_folder.from_peft,
    "comfyui": comfyui.from_comfyui,
    "custom-diffusion": custom_diffusion.from_custom_diffusion,
}
# The base that files of this text width are for, and what they are called.
USUAL_BASES: Mapping[int, str] = {
    192: "embedded",
    768: "timbrooks/instruct-pix2pix",
    2048: "diffusers/sdxl-instructpix2pix-768",
}
MODELS: Mapping[int, str] = {
    192: "the embedded base",
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
}


@dataclass(frozen=True)
class Found:
    """A file that can be read: its layout, how it describes changes, and what it changes."""

    layout: Layout
    kind: str
    changes: Changes


class ImportFaultsError(FaultsError, AdapterFileError):
    """Layers of a file that do not fit the base."""


def import_adapter(
    path: Path,
    base_name: str | None = None,
    *,
    words: Sequence[tuple[str, Path | None]] = (),
    drop_biases: bool = False,
) -> tuple[AdapterFile, list[tuple[str, str]]]:
    """Read `path` into an adapter for a base, and say what was read as rows of name and text.

    Without `base_name` it is the usual one for the file's shapes. `words` names words and their
    embedding files, None for `path` itself. Raises AdapterFileError, naming what a foreign file
    is, and BaseModelError.
    """
    from customize.exporting.native import to_native
    from customize.families.bases import resolve_base
    from customize.families.weights import BaseWeights

    found = _with_words(path, words)
    if found.changes.biases and not drop_biases:
        count = len(found.changes.biases)
        raise AdapterFileError(
            f"{path}: it changes the biases of {count} layers such as {found.changes.biases[0]}; "
            "expected changes of weights, which is all that adapters hold; add --drop-biases to "
            "import the weights alone"
        )
    base = resolve_base(base_name or _usual_base(path, found.changes))
    weights = BaseWeights(base)
    _check_fit(path, found.changes, weights, base)
    header = Header(
        family=base.family,
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        method="imported",
        concepts=_concepts(path, found.changes),
        versions=library_versions(),
        training={"imported_from": path.name, "layout": f"{found.layout}, {found.kind}"},
    )
    adapter = AdapterFile(header, to_native(found.changes, weights))
    return adapter, [*describe(found), ("base", f"{base.name} ({base.fingerprint[:12]})")]


def read(path: Path, *, outlines: bool = False) -> Found:
    """Read a file, or a folder of peft's, of any layout but our own.

    With `outlines` tensors have shapes and no content, so that it is quick. Raises
    AdapterFileError that names what the file is instead.
    """
    if path.is_dir() and (parts := sorted(path.rglob(peft_folder.WEIGHTS))):
        found = [read(part, outlines=outlines) for part in parts]
        layers = {layer: c for one in found for layer, c in one.changes.layers.items()}
        return replace(found[0], changes=Changes(layers))
    opened = open_file(path)
    layout = recognize(opened)
    if layout is None:
        raise _foreign(path, foreign(opened), "name the file of an adapter")
    if layout == "customize":
        raise _foreign(path, "an adapter of customize already", "use it as it is")
    if layout == "embedding":
        (name, rows), *_ = opened.shapes.items()
        found = f"an embedding alone ({name!r}, {list(rows)}), a word without weights"
        cure = f"say which word it is: --word '{word_of(path.stem)}'"
        raise _foreign(path, found, cure)
    metadata = dict(opened.metadata)
    if layout == "peft":
        metadata |= _peft_config(path)
    tensors = opened.outlines() if outlines else opened.tensors()
    return Found(layout, kind_of(opened.shapes), READERS[layout](tensors, metadata))


def describe(found: Found) -> Iterator[tuple[str, str]]:
    """Tell a file's layout, kind, model, layers and words as rows."""
    changes = found.changes
    yield "layout", f"{found.layout}, {found.kind}"
    width = text_width(changes)
    if width is not None:
        yield "made for", MODELS.get(width, f"a model whose text is {width} wide")
    models = Counter(layer.partition(".")[0] for layer in changes.layers)
    yield "layers", ", ".join(f"{count} of the {model}" for model, count in models.items())
    ranks = sorted({rank for change in changes.layers.values() if (rank := _rank(change))})
    if ranks:
        yield "rank", f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    for word, rows in changes.words.items():
        yield "word", f"{word} ({len(next(iter(rows.values())))} vectors)"


def text_width(changes: Changes) -> int | None:
    """Return the width of the text that cross-attention reads, None where no layer tells it."""
    for layer, change in changes.layers.items():
        if layer.endswith((".attn2.to_k", ".attn2.to_v")):
            return _shape(change)[1]
    return None


def _with_words(path: Path, words: Sequence[tuple[str, Path | None]]) -> Found:
    """Read the file, and the embedding file of each word."""
    rows = {}
    for word, place in words:
        opened = open_file(place or path)
        if recognize(opened) != "embedding":
            found = recognize(opened) or foreign(opened)
            raise _foreign(opened.path, f"no embedding but {found}", f"name the file of {word}")
        rows[word] = from_embedding(opened.tensors())
    if rows and any(place is None for _, place in words):
        return Found("embedding", "words", Changes(words=rows))
    found = read(path)
    return replace(found, changes=replace(found.changes, words={**found.changes.words, **rows}))


def _usual_base(path: Path, changes: Changes) -> str:
    """Choose the base that files of these shapes are for; only its own id is certain."""
    width = text_width(changes)
    if width is None:
        for rows in changes.words.values():
            width = 2048 if len(rows) > 1 else rows["text_encoder"].shape[1]
    if name := USUAL_BASES.get(width or 0):
        return name
    known = MODELS.get(width or 0)
    what = f"it is for {known}" if known else "its layers do not tell which model it is for"
    raise AdapterFileError(
        f"{path}: {what}; expected one for Stable Diffusion 1, XL or the embedded base; "
        "name the base with --base, or take another file"
    )


def _check_fit(path: Path, changes: Changes, weights: Weights, base: Base) -> None:
    """Raise where the base lacks a layer or a shape differs, with what the file seems to be."""
    faults = []
    for layer, change in changes.layers.items():
        if layer not in weights:
            faults.append(Fault(layer, f"{base.name} has no such layer", "name its own base"))
            continue
        ours, theirs = _flat(weights.shape(layer)), _flat(_shape(change))
        if ours != theirs:
            found = f"it is {theirs[0]} x {theirs[1]}, in {base.name} {ours[0]} x {ours[1]}"
            faults.append(Fault(layer, found, "name its own base"))
    if not faults:
        return
    model = MODELS.get(text_width(changes) or 0)
    kind = f" is for {model} and" if model else ""
    shown, rest = faults[:5], len(faults) - 5
    if rest > 0:
        shown.append(Fault("...", f"{rest} more layers do not fit", "name the right base"))
    title = f"{path}{kind} does not fit {base.name}"
    raise ImportFaultsError(title, shown)


def _concepts(path: Path, changes: Changes) -> tuple[Taught, ...]:
    """Name what was taught: the words, else the file."""
    return tuple(
        Taught(word.strip("<>"), word, vectors=len(next(iter(rows.values()))))
        for word, rows in changes.words.items()
    ) or (Taught(path.stem),)


def _peft_config(path: Path) -> dict[str, str]:
    """Read the config that peft keeps beside the weights: without it alpha is unknown."""
    place = path.with_name(peft_folder.CONFIG)
    if not place.is_file():
        raise _foreign(path, f"a peft file without {place.name} beside it", "fetch that as well")
    facts = {peft_folder.CONFIG: place.read_text(encoding="utf-8")}
    if path.parent.name in ("text_encoder", "text_encoder_2"):
        facts[peft_folder.MODEL] = path.parent.name
    return facts


def _foreign(path: Path, found: str, cure: str) -> AdapterFileError:
    return AdapterFileError(
        f"{path}: this is {found}; expected an adapter of another program for Stable Diffusion 1 "
        f"or XL; {cure}"
    )


def _rank(change: Change) -> int | None:
    match change:
        case LowRank(down) | Decomposed(LowRank(down)):
            return down.shape[0]
    return None


def _shape(change: Change) -> tuple[int, ...]:
    match change:
        case LowRank(down, up):
            return (up.shape[0], *down.shape[1:])
        case Full(tensor):
            return tuple(tensor.shape)
        case Decomposed(inner):
            return _shape(inner)
    return tuple(change.weight.shape)


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
