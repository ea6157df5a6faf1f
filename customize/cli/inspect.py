"""`customize inspect`: what an adapter of any program is, or how a picture was edited."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.drawing.escape import command, visible
from customize.drawing.table import table
from customize.errors import AdapterFileError, EditError

if TYPE_CHECKING:
    from customize.adapters.header import Header
    from customize.adapters.open_safetensors import Opened
    from customize.exporting.foreign.read import Found
    from customize.exporting.foreign.recognize import Layout

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def add_to(commands: Any) -> None:
    """Describe `inspect` to the command line's parser."""
    command = commands.add_parser("inspect", help="tell what an adapter or an edited PNG is")
    command.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="adapter of any program (.safetensors, or a folder of peft's), or PNG",
    )
    command.set_defaults(run=inspect)


def inspect(arguments: argparse.Namespace) -> int:
    """Print an adapter's header or layout, or the settings in a PNG, as a table."""
    path: Path = arguments.file
    rows = _picture_rows(path) if path.suffix.lower() in _PICTURES else _adapter_rows(path)
    print(table([(visible(name), visible(text)) for name, text in rows]))
    return 0


def _picture_rows(path: Path) -> Iterator[tuple[str, str]]:
    from customize.editing.edited_picture import read_settings

    settings = read_settings(path)
    if settings is None:
        raise EditError(
            f"{path}: this picture carries no settings; expected a PNG of `customize edit`; "
            "edit to .png to keep them"
        )
    yield from ((name.replace("_", " "), _shown(value)) for name, value in settings.items())


def _adapter_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Tell an adapter of ours by its header, others by what they hold."""
    from customize.adapters.file import read_header
    from customize.adapters.open_safetensors import open_safetensors
    from customize.exporting.foreign.recognize import recognize

    opened: Opened | None = None
    if not path.is_dir():
        opened = open_safetensors(path)
        if (layout := recognize(opened)) == "customize":
            yield from _header_rows(path, read_header(path))
            return
        yield "file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
        if layout is None or layout == "embedding":
            yield from _no_weights(opened, layout)
            return
    yield from _foreign_rows(path)
    if opened is not None:
        metadata = opened.metadata
        told = (key for key in sorted(metadata) if key.startswith(("ss_", "modelspec.")))
        yield from ((key, metadata[key]) for key in told if len(metadata[key]) <= 200)


def _no_weights(opened: Opened, layout: Layout | None) -> Iterator[tuple[str, str]]:
    """Tell a file that holds a word alone, or no adapter at all."""
    from customize.exporting.foreign.recognize import foreign
    from customize.exporting.formats.embeddings import word_of

    if layout is None:
        found, cure = foreign(opened)
        yield "is", found
        yield "can be", f"nothing here: no adapter for Stable Diffusion 1 or XL; {cure}"
        return
    yield "layout", "embedding, a word without weights"
    yield from ((name, f"{list(shape)}") for name, shape in opened.shapes.items())
    word = word_of(opened.path.stem)
    from customize.exporting.foreign.import_adapter import read_importable

    read_importable(opened.path, words=[(word, None)])
    yield "can be", _importing(opened.path, "--word", word)


def _foreign_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Tell a file or folder of another program, and how it is imported if it can be."""
    from customize.exporting.foreign.folders import files_of
    from customize.exporting.foreign.import_adapter import read_importable
    from customize.exporting.foreign.read import describe

    if path.is_dir():
        files = files_of(path)
        size = sum(file.stat().st_size for file in files) / 1e6
        yield "folder", f"{path} ({len(files)} files, {size:.1f} MB)"
    found = read_importable(path, drop_biases=True)
    yield from describe(found)
    yield "can be", _can_be(path, found)


def _can_be(path: Path, found: Found) -> str:
    """Say how a file is imported; nothing is promised that `customize import` refuses."""
    from customize.exporting.foreign.import_adapter import import_adapter, name_of_base
    from customize.exporting.foreign.read import model_of, text_width

    dropped = ["--drop-biases"] * bool(found.changes.biases)
    width = text_width(found.changes)
    if model_of(width) is None:
        told = "onto a base with such layers, which it does not tell"
        return f"{_importing(path, *dropped, '--base', 'BASE')} ({told})"
    try:
        base = name_of_base(path, found.changes)
        if base == "embedded":  # the one base that is always here to look at
            import_adapter(path, base, drop_biases=True)
    except AdapterFileError as error:
        return f"nothing here: {error}"
    return f"{_importing(path, *dropped)} (onto {base}, where its layers fit)"


def _importing(path: Path, *options: str) -> str:
    told = command("customize", "import", str(path), *options, "-o", "adapter.safetensors")
    return f"imported: {told}"


def _header_rows(path: Path, header: Header) -> Iterator[tuple[str, str]]:
    """Tell an adapter in the order in which one asks."""
    yield "file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
    for concept in header.concepts:
        words = f" as {concept.word}" if concept.word else ""
        start = f", started from {concept.initializer!r}" if concept.initializer else ""
        vectors = f", {concept.vectors} vectors" if concept.vectors > 1 else ""
        yield "concept", f"{concept.name}{words}{start}{vectors}"
        yield from (("  taught by", instruction) for instruction in concept.instructions)
    yield "base", f"{header.base_name} (weights {header.base_fingerprint[:12]})"
    yield "family", header.family
    yield "method", _method(header)
    for name, value in header.training.items():
        yield name.replace("_", " "), _shown(value)
    train = header.recipe.get("train", {})
    for name in ("learning_rate", "optimizer", "batch", "seed"):
        if name in train:
            yield name.replace("_", " "), _shown(train[name])
    if header.pairs:
        yield "pairs", f"{len(header.pairs)}: {', '.join(header.pairs)}"
    yield "made with", ", ".join(f"{name} {number}" for name, number in header.versions.items())


def _method(header: Header) -> str:
    if header.rank is None:
        return header.method
    kind = "DoRA" if header.decompose else "LoRA"
    alpha = header.rank if header.alpha is None else header.alpha
    text = f", text encoder rank {header.text_encoder_rank}" if header.text_encoder_rank else ""
    return f"{kind} rank {header.rank}, alpha {alpha:g}, on {', '.join(header.targets)}{text}"


def _shown(value: Any) -> str:
    """Write a value of a header for people: floats short, lists and sections in a line."""
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no" if value is False else "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return "; ".join(_shown(item) for item in value) or "-"
    return str(value)
