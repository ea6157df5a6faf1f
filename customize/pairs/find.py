"""Find the pairs of a folder or table, whichever of the known layouts it has.

A layout is recognized by its files and never guessed: `PairSet.layout` names it for the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from customize.errors import Fault, PairsError
from customize.files.spelling import as_stored
from customize.files.text import found_at
from customize.pairs.layouts.configs import describes_pairs, read_config
from customize.pairs.layouts.folders import StemFolders, read_start_end, read_stems
from customize.pairs.layouts.numbered import read_numbered
from customize.pairs.layouts.records import read_table
from customize.pairs.layouts.table_rows import TABLE_SUFFIXES
from customize.pairs.picture_files import (
    FOREIGN_SUFFIXES,
    PICTURE_SUFFIXES,
    Find,
    holds_pictures,
    pictures_by_stem,
    visible,
)
from customize.shapes import Pair

TABLE_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.json")
TARGET_FOLDERS = ("targets", "target", "edited", "outputs", "output", "after", "images", "image")
SOURCE_FOLDERS = (
    *("control", "controls", "control_images", "sources", "source"),
    *("inputs", "input", "before", "originals", "original"),
)
ARCHIVES = frozenset([".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".zst"])
BINARY_TABLES = frozenset([".parquet", ".arrow", ".feather", ".tfrecord"])
EXPECTED = (
    "expected pairs.jsonl with source, instruction, edited on each line; or folders images/ "
    "(targets, each with a .txt) and control/ (sources of the same stems); "
    "or ROOT_start.png, ROOT_end.png, ROOT.txt"
)


@dataclass(frozen=True)
class PairSet:
    """The pairs found, in natural order, and the name of the layout they were found in."""

    layout: str
    pairs: tuple[Pair, ...]


def find_pairs(path: Path, *, references: bool = False) -> PairSet:
    """Return the pairs at `path`, a folder, a table or another trainer's dataset file.

    Pictures are not opened. Raises PairsError with every fault: missing partners, texts, files, bad
    rows, and pairs of several sources where there is no use for `references`.
    """
    path = as_stored(Path(path))
    layout = None
    try:
        layout, finds = _read(path)
        listed = list(finds)
    except (OSError, ValueError) as error:  # unreadable folders, names no file system can hold
        reason = getattr(error, "strerror", None) or error
        listed = [Fault(str(path), f"cannot be read ({reason})", "check the path and permissions")]
    pairs = tuple(find for find in listed if isinstance(find, Pair))
    faults = [find for find in listed if isinstance(find, Fault)]
    if not references:
        faults += [_several_sources(pair) for pair in pairs if pair.references]
    if not pairs and not faults:
        faults = [Fault(str(path), "holds no pairs", EXPECTED)]
    if faults:
        raise PairsError(f"pairs at {path}" + (f" ({layout})" if layout else ""), faults)
    assert layout is not None
    return PairSet(layout, pairs)


def _read(path: Path) -> tuple[str | None, Iterable[Find]]:
    if path.is_dir():
        return _read_folder(path)
    place, suffix = str(path), path.suffix.lower()
    if not path.is_file():
        return None, [Fault(place, found_at(path), "fix the path given in the recipe")]
    if suffix in TABLE_SUFFIXES:
        return read_table(path, path.parent)
    if suffix in (".toml", ".yaml", ".yml"):
        return read_config(path)
    if suffix in ARCHIVES:
        return None, [Fault(place, "an archive", "unpack it and give the folder")]
    if suffix in BINARY_TABLES:
        return None, [_binary_table(place)]
    if suffix in PICTURE_SUFFIXES | FOREIGN_SUFFIXES:
        return None, [Fault(place, "one picture, not a set of pairs", "give the folder of pairs")]
    return None, [Fault(place, "neither a folder nor a table of pairs", EXPECTED)]


def _read_folder(folder: Path) -> tuple[str | None, Iterable[Find]]:
    entries = visible(folder)
    if (folder / "pairs.jsonl").is_file():
        return read_table(folder / "pairs.jsonl", folder)
    tables = [entry for entry in entries if entry.name in TABLE_NAMES]
    tables = tables or [entry for entry in entries if entry.suffix.lower() in (".jsonl", ".csv")]
    if len(tables) > 1:
        return None, [_several(folder, tables)]
    if tables:
        return read_table(tables[0], folder)
    configs = [entry for entry in entries if entry.suffix == ".toml" and describes_pairs(entry)]
    if len(configs) > 1:
        return None, [_several(folder, configs)]
    if configs:
        return read_config(configs[0])
    if (folder / "seeds.json").is_file() or any(folder.glob("*/prompt.json")):
        return "InstructPix2Pix numbered folders", read_numbered(folder)
    return _read_by_names(folder, entries)


def _read_by_names(folder: Path, entries: list[Path]) -> tuple[str | None, Iterable[Find]]:
    """Read a folder that has nothing but pictures and texts in it."""
    if any(stem.endswith(("_start", "_end")) for stem in pictures_by_stem(folder)):
        return "start and end pictures (fal)", read_start_end(folder)
    targets = _subfolders(folder, TARGET_FOLDERS)
    sources = _subfolders(folder, SOURCE_FOLDERS)
    if not targets and holds_pictures(folder):
        targets = [folder]
        beside = folder.parent / f"{folder.name}_control"
        sources = sources or ([beside] if beside.is_dir() else [])
    if len(targets) == 1 and sources:
        layout = "ai-toolkit folders"
        if (targets[0].name, sources[0].name) == ("images", "control"):
            layout = "FlyMyAI folders"
        return layout, read_stems(StemFolders(targets[0], tuple(sources), folder))
    if len(targets) > 1:
        return None, [_several(folder, targets)]
    if targets or sources:
        here, missing = (targets or sources)[0], "control" if targets else "images"
        found = f"{here.name} holds {'targets' if targets else 'sources'} and has no partner folder"
        cure = f"put their partners, with the same stems, in {folder / missing}"
        return None, [Fault(str(here), found, cure)]
    for entry in entries:
        if entry.suffix.lower() in BINARY_TABLES:
            return None, [_binary_table(str(entry))]
        if entry.suffix.lower() in ARCHIVES:
            return None, [Fault(str(entry), "an archive", "unpack it and give the folder")]
    found = "a folder in none of the known layouts" if entries else "an empty folder"
    return None, [Fault(str(folder), found, EXPECTED)]


def _several_sources(pair: Pair) -> Fault:
    found = f"{1 + len(pair.references)} source pictures"
    return Fault(pair.place, found, "keep one: the base edits one picture at a time")


def _subfolders(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_dir()]


def _several(folder: Path, found: list[Path]) -> Fault:
    listed = ", ".join(entry.name for entry in found)
    return Fault(str(folder), f"{listed} might each say the pairs", "keep one, or give its path")


def _binary_table(place: str) -> Fault:
    cure = "export it as picture files with a metadata.jsonl (imagefolder layout)"
    return Fault(place, "a binary table", cure)
