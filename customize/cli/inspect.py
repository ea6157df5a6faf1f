"""`customize inspect`: what an adapter of any program is, or how a picture was edited."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.drawing.table import table
from customize.errors import EditError

if TYPE_CHECKING:
    from customize.adapters.header import Header


_CAN_BE = "imported: customize import {} -o adapter.safetensors"


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
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        from customize.editing.edited_picture import read_settings

        settings = read_settings(path)
        if settings is None:
            raise EditError(
                f"{path}: this picture carries no settings; expected a PNG of `customize edit`; "
                "edit to .png to keep them"
            )
        print(table([[name.replace("_", " "), _shown(value)] for name, value in settings.items()]))
        return 0
    from customize.adapters.file import read_header
    from customize.exporting.foreign.open_file import open_file
    from customize.exporting.foreign.recognize import recognize
    from customize.exporting.formats.peft_folder import WEIGHTS

    if path.is_dir() and (files := sorted(path.rglob(WEIGHTS))):
        print(table(list(_folder_rows(path, files))))
        return 0
    if path.is_file() and recognize(open_file(path)) != "customize":
        print(table(list(_foreign_rows(path))))
        return 0
    print(table(list(_header_rows(path, read_header(path)))))
    return 0


def _folder_rows(path: Path, files: list[Path]) -> Iterator[tuple[str, str]]:
    """Tell a folder of peft's, which holds a file for each model."""
    from customize.exporting.foreign.read import describe, read

    size = sum(file.stat().st_size for file in files) / 1e6
    yield "folder", f"{path} ({len(files)} files, {size:.1f} MB)"
    yield from describe(read(path, outlines=True))
    yield "can be", _CAN_BE.format(path)


def _foreign_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Tell a file of another program: its layout, or what it is that is no adapter."""
    from customize.exporting.foreign.open_file import open_file
    from customize.exporting.foreign.read import describe, read
    from customize.exporting.foreign.recognize import foreign, recognize

    opened = open_file(path)
    yield "file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
    match recognize(opened):
        case None:
            yield "is", foreign(opened)
            yield "can be", "nothing here: no adapter for Stable Diffusion 1 or XL"
            return
        case "embedding":
            yield "layout", "embedding, a word without weights"
            yield from ((name, f"{list(shape)}") for name, shape in opened.shapes.items())
        case _:
            yield from describe(read(path, outlines=True))
    yield "can be", _CAN_BE.format(path)
    told = (key for key in sorted(opened.metadata) if key.startswith(("ss_", "modelspec.")))
    yield from ((key, opened.metadata[key]) for key in told if len(opened.metadata[key]) <= 200)


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
