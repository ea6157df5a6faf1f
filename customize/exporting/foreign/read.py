"""Read a file or folder of any layout into the changes it carries, and tell them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from customize.adapters.file import read_adapter
from customize.adapters.open_safetensors import Opened, open_safetensors, refused
from customize.errors import AdapterFileError
from customize.exporting.changes import Changes, Decomposed, LowRankChange, WeightChange, outline
from customize.exporting.foreign.check_changes import check_changes
from customize.exporting.foreign.folders import files_of
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
from customize.files.parse import MOST_CONFIG_BYTES
from customize.files.text import special_file

Reader = Callable[[Mapping[str, Tensor], Mapping[str, str]], Changes]
READERS: Mapping[Layout, Reader] = {
    "kohya": kohya.from_kohya,
    "diffusers": diffusers_lora.from_diffusers,
    "peft": peft_folder.from_peft,
    "comfyui": comfyui.from_comfyui,
    "custom-diffusion": custom_diffusion.from_custom_diffusion,
}
_NUMBERS = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True)
class Found:
    """A file that can be read: its layout, how it describes changes, and what it changes."""

    layout: Layout
    kind: str
    changes: Changes


def read(path: Path) -> Found:
    """Read a file, or a folder of peft's or diffusers', of any layout but our own.

    Raises AdapterFileError that names what it is instead, or what is wrong with it.
    """
    if path.is_dir():
        return _together([read(part) for part in files_of(path)])
    opened = open_safetensors(path)
    layout = recognize(opened)
    if layout is None:
        _refuse_by_config(opened)
        raise foreign_file(path, *foreign(opened))
    if layout == "customize":
        read_adapter(path)  # says first what is wrong with it
        raise foreign_file(path, "an adapter of customize already", "use it as it is")
    if layout == "embedding":
        (name, rows), *_ = opened.shapes.items()
        found = f"an embedding alone ({name!r}, {list(rows)}), a word without weights"
        cure = f"say which word it is: --word '{word_of(path.stem)}'"
        raise foreign_file(path, found, cure)
    check_types(opened)
    metadata = dict(opened.metadata) | (_peft_facts(path) if layout == "peft" else {})
    try:
        changes = READERS[layout](opened.tensors(), metadata)
    except AdapterFileError as error:  # readers know no file
        raise AdapterFileError(f"{path}: {error}") from None
    check_changes(path, changes)
    return Found(layout, kind_of(opened.shapes), changes)


def check_types(opened: Opened) -> None:
    """Refuse tensors of whole numbers and the like, which mean no weights; alpha may be one."""
    for name, entry in opened.entries.items():
        if entry.dtype not in _NUMBERS and not name.endswith(".alpha"):
            found = f"a file whose tensor {name!r} holds numbers of the type {entry.dtype}"
            raise refused(opened.path, found, "export it again as float16 or float32")


def _together(parts: Sequence[Found]) -> Found:
    """Put the files of one folder together, each of which is for a model of its own."""
    changes = Changes(
        layers={layer: c for one in parts for layer, c in one.changes.layers.items()},
        words={word: rows for one in parts for word, rows in one.changes.words.items()},
        biases=tuple(layer for one in parts for layer in one.changes.biases),
        starts={layer: start for one in parts for layer, start in one.changes.starts.items()},
    )
    return replace(parts[0], changes=changes)


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
    for kind in dict.fromkeys(start.kind for start in changes.starts.values()):
        yield (
            "start",
            f"{kind}: it began as a part of the base's weights, which is taken off again; exact on "
            "the base it was trained on, and on no other",
        )
    if changes.biases:
        yield "biases", f"of {len(changes.biases)} layers"
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


def _refuse_by_config(opened: Opened) -> None:
    """Refuse a file of peft's by the kind that the configuration beside it says."""
    if any(name.startswith(peft_folder.ROOT) for name in opened.entries):
        text = _peft_facts(opened.path).get(peft_folder.CONFIG)
        if text is not None:
            try:
                peft_folder.config_of(text)
            except AdapterFileError as error:
                raise AdapterFileError(f"{opened.path}: {error}") from None


def _peft_facts(path: Path) -> dict[str, str]:
    """Read what peft keeps beside the weights, alpha above all; the folder names the model."""
    place, facts = path.with_name(peft_folder.CONFIG), dict[str, str]()
    if kind := special_file(place):
        raise refused(place, kind, "name a folder that peft wrote")
    if place.is_file():
        with place.open("rb") as file:
            facts[peft_folder.CONFIG] = file.read(MOST_CONFIG_BYTES + 1).decode(errors="replace")
    if is_encoder(path.parent.name):
        facts[peft_folder.MODEL] = path.parent.name
    return facts


def foreign_file(path: Path, found: str, cure: str) -> AdapterFileError:
    """Word the refusal of a file as found, expected, what to do."""
    return AdapterFileError(
        f"{path}: this is {found}; expected an adapter of another program for Stable Diffusion 1 "
        f"or XL; {cure}"
    )


def _rank(change: WeightChange) -> int | None:
    match change:
        case LowRankChange(down) | Decomposed(LowRankChange(down)):
            return down.shape[0]
    return None
