"""The files of a written target by what they hold, and what removes them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.exporting.formats.embeddings import PAIR, file_name
from customize.exporting.targets import Written
from customize.families.profile import tokenizer_of
from customize.files.manifest import NAME as LIST

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.exporting.changes import Changes


def weights_files(written: Written) -> list[Path]:
    """List the safetensors that hold weights; words lie in a folder of their own."""
    files = (path for path in written.files if path.suffix == ".safetensors")
    return [path for path in files if path.parent != written.folder / "embeddings"]


def embedding_files(written: Written, adapter: AdapterFile) -> Mapping[str, Path]:
    """Find the embedding file of each word of the adapter."""
    from customize.adapters.deltas import words

    place = written.folder / "embeddings"
    files = {path.stem: path for path in written.files if path.parent == place}
    return {word: files[file_name(word)] for word in words(adapter)}


def read_changes(written: Written, adapter: AdapterFile) -> Changes:
    """Read weights and words back by our own readers, whatever the layout of one file or many."""
    from customize.adapters.open_safetensors import open_safetensors
    from customize.exporting.changes import Changes
    from customize.exporting.foreign.read import read
    from customize.exporting.formats.embeddings import from_embedding

    parts = [read(path).changes for path in weights_files(written)]
    layers = {layer: change for part in parts for layer, change in part.layers.items()}
    found = embedding_files(written, adapter)
    words = {w: from_embedding(open_safetensors(path).tensors()) for w, path in found.items()}
    return Changes(layers, words)


def load_words(pipeline: Any, written: Written, adapter: AdapterFile) -> None:
    """Give diffusers each word's file; SDXL's holds two encoders' rows, loaded one by one."""
    from safetensors.torch import load_file

    for word, path in embedding_files(written, adapter).items():
        tensors = load_file(path)
        if tensors.keys() != PAIR.keys():
            pipeline.load_textual_inversion(path, token=word)
            continue
        for name, encoder in PAIR.items():
            pipeline.load_textual_inversion(
                {word: tensors[name]},
                token=word,
                text_encoder=getattr(pipeline, encoder),
                tokenizer=getattr(pipeline, tokenizer_of(encoder)),
            )


def remove(written: Written) -> None:
    """Remove a target's files, and its folders that are empty without them."""
    for path in written.files:
        path.unlink(missing_ok=True)
    above = {place for path in written.files for place in path.parents}
    for folder in sorted(above, reverse=True):  # the innermost first
        inside = folder == written.folder or written.folder in folder.parents
        if not inside or not folder.is_dir():
            continue
        if [path.name for path in folder.iterdir()] == [LIST]:
            (folder / LIST).unlink()  # of files that are gone
        if not any(folder.iterdir()):
            folder.rmdir()
