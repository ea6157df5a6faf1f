"""Read a file of any layout into the changes it carries, and tell them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import Change, Changes, Decomposed, LowRank, outline
from customize.exporting.foreign.open_file import open_file
from customize.exporting.foreign.recognize import Layout, foreign, kind_of, recognize
from customize.exporting.formats import (
    comfyui,
    custom_diffusion,
    diffusers_lora,
    kohya,
    peft_folder,
)
from customize.exporting.formats.embeddings import word_of
from customize.exporting.formats.module_paths import is_encoder
from customize.families import profiles
from customize.families.profile import UsualBase

Reader = Callable[[Mapping[str, Tensor], Mapping[str, str]], Changes]
READERS: Mapping[Layout, Reader] = {
    "kohya": kohya.from_kohya,
    "diffusers": diffusers_lora.from_diffusers,
    "peft": peft_folder.from_peft,
    "comfyui": comfyui.from_comfyui,
    "custom-diffusion": custom_diffusion.from_custom_diffusion,
}


@dataclass(frozen=True)
class Found:
    """A file that can be read: its layout, how it describes changes, and what it changes."""

    layout: Layout
    kind: str
    changes: Changes


def read(path: Path, *, outlines: bool = False) -> Found:
    """Read a file, or a folder of peft's, of any layout but our own.

    With `outlines` tensors have shapes and no content, so that it is quick. Raises AdapterFileError
    that names what the file is instead.
    """
    if path.is_dir() and (parts := sorted(path.rglob(peft_folder.WEIGHTS))):
        found = [read(part, outlines=outlines) for part in parts]
        layers = {layer: c for one in found for layer, c in one.changes.layers.items()}
        return replace(found[0], changes=Changes(layers))
    opened = open_file(path)
    layout = recognize(opened)
    if layout is None:
        raise foreign_file(path, foreign(opened), "name the file of an adapter")
    if layout == "customize":
        raise foreign_file(path, "an adapter of customize already", "use it as it is")
    if layout == "embedding":
        (name, rows), *_ = opened.shapes.items()
        found = f"an embedding alone ({name!r}, {list(rows)}), a word without weights"
        cure = f"say which word it is: --word '{word_of(path.stem)}'"
        raise foreign_file(path, found, cure)
    metadata = dict(opened.metadata)
    if layout == "peft":
        metadata |= _peft_config(path)
    tensors = opened.outlines() if outlines else opened.tensors()
    try:
        changes = READERS[layout](tensors, metadata)
    except AdapterFileError as error:  # readers know no file
        raise AdapterFileError(f"{path}: {error}") from None
    return Found(layout, kind_of(opened.shapes), changes)


def describe(found: Found) -> Iterator[tuple[str, str]]:
    """Tell a file's layout, kind, model, layers and words as rows."""
    changes = found.changes
    yield "layout", f"{found.layout}, {found.kind}"
    width = text_width(changes)
    if width is not None:
        yield "made for", model_of(width) or f"a model whose text is {width} wide"
    models = Counter(layer.partition(".")[0] for layer in changes.layers)
    yield "layers", ", ".join(f"{count} of the {model}" for model, count in models.items())
    ranks = sorted({rank for change in changes.layers.values() if (rank := _rank(change))})
    if ranks:
        yield "rank", f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    for word, rows in changes.words.items():
        yield "word", f"{word} ({len(next(iter(rows.values())))} vectors)"


def text_width(changes: Changes) -> int | None:
    """Return the width of the text that keys and values read, None where no layer tells it."""
    patterns = {profile.layers.text_kv for profile in profiles()}
    for layer, change in changes.layers.items():
        if any(re.fullmatch(rf"denoiser\.{pattern}", layer) for pattern in patterns):
            return outline(change).shape[1]
    return None


def usual_base(width: int | None) -> UsualBase | None:
    """Find the base that adapters of this text width are for."""
    known = (base for profile in profiles() for base in profile.usual_bases)
    return next((base for base in known if base.text_width == width), None)


def model_of(width: int | None) -> str | None:
    """Say which models read text of this width, also those that nothing here is for."""
    if base := usual_base(width):
        return base.model
    return "Stable Diffusion 2" if width == 1024 else None


def _peft_config(path: Path) -> dict[str, str]:
    """Read the config that peft keeps beside the weights: without it alpha is unknown."""
    place = path.with_name(peft_folder.CONFIG)
    if not place.is_file():
        raise foreign_file(
            path, f"a peft file without {place.name} beside it", "fetch that as well"
        )
    facts = {peft_folder.CONFIG: place.read_text(encoding="utf-8")}
    if is_encoder(path.parent.name):
        facts[peft_folder.MODEL] = path.parent.name
    return facts


def foreign_file(path: Path, found: str, cure: str) -> AdapterFileError:
    """Word the refusal of a file as found, expected, what to do."""
    return AdapterFileError(
        f"{path}: this is {found}; expected an adapter of another program for Stable Diffusion 1 "
        f"or XL; {cure}"
    )


def _rank(change: Change) -> int | None:
    match change:
        case LowRank(down) | Decomposed(LowRank(down)):
            return down.shape[0]
    return None
