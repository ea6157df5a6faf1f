"""Pairs named by another trainer's file: musubi-tuner or diffusion-pipe TOML, ai-toolkit YAML.

Only what says where pictures and texts lie is read. Folders are relative to the file, as ours are
everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from customize.errors import Fault
from customize.files.parse import parse_toml, parse_yaml
from customize.files.spelling import as_stored
from customize.files.text import Unreadable, check_path, found_at
from customize.pairs.layouts.folders import StemFolders, read_stems
from customize.pairs.layouts.records import read_table
from customize.pairs.picture_files import Find, read_text


@dataclass(frozen=True)
class Keys:
    """The names one trainer gives to the parts of a data set."""

    layout: str
    targets: str
    sources: str
    table: str | None = None
    text_suffix: str = "caption_extension"
    instruction: str | None = None
    numbered: bool = False


MUSUBI = Keys(
    *("musubi-tuner TOML", "image_directory", "control_directory"),
    table="image_jsonl_file",
    numbered=True,
)
DIFFUSION_PIPE = Keys("diffusion-pipe TOML", "path", "control_path")
AI_TOOLKIT = Keys(
    *("ai-toolkit config", "folder_path", "control_path"),
    text_suffix="caption_ext",
    instruction="default_caption",
)


def read_config(path: Path) -> tuple[str, list[Find]]:
    """Return the layout that the TOML or YAML file describes, and its pairs and faults."""
    config = _parse(path)
    match config:
        case Fault():
            return "dataset file", [config]
        case {"datasets": [*sections], **rest}:
            keys, shared = MUSUBI, rest.get("general")
        case {"directory": [*sections], **rest}:
            keys, shared = DIFFUSION_PIPE, {k: v for k, v in rest.items() if k == "num_repeats"}
        case {"config": {"process": [*processes]}}:
            datasets = [p.get("datasets") for p in processes if isinstance(p, dict)]
            sections = [s for listed in datasets if isinstance(listed, list) for s in listed]
            keys, shared = AI_TOOLKIT, None
        case _:
            found = "no data sets in it"
            cure = (
                "expected [[datasets]] (musubi-tuner), [[directory]] (diffusion-pipe) "
                "or an ai-toolkit config"
            )
            return "dataset file", [Fault(path.name, found, cure)]
    general = shared if isinstance(shared, dict) else {}
    finds: list[Find] = []
    for number, section in enumerate(sections, start=1):
        place = f"{path.name}, data set {number}"
        if isinstance(section, dict):
            finds += _section({**general, **section}, keys, path.parent, place)
        else:
            finds.append(Fault(place, f"{section!r:.40} is not a section", "write keys and values"))
    return keys.layout, finds


def describes_pairs(path: Path) -> bool:
    """Say whether a TOML file found in a pairs folder is (or might be) a data set file."""
    config = _parse(path)
    return isinstance(config, Fault) or bool({"datasets", "directory"} & config.keys())


def _parse(path: Path) -> dict[str, Any] | Fault:
    text = read_text(path, path.parent)
    if isinstance(text, Fault):
        return text
    try:
        config = parse_toml(text) if path.suffix.lower() == ".toml" else parse_yaml(text)
    except Unreadable as error:
        place = f"{path.name}:{error.line}" if error.line else path.name
        return Fault(place, error.found, error.cure)
    return config if isinstance(config, dict) else {}


def _section(section: dict[str, Any], keys: Keys, base: Path, place: str) -> Iterator[Find]:
    """Yield the pairs of one data set section."""
    table = section.get(keys.table) if keys.table else None
    if isinstance(table, str):
        if fault := _not_there(place, keys.table or "", table, base, os.path.isfile):
            yield fault
        else:
            yield from read_table(as_stored(base / table), base)[1]
        return
    targets, listed = section.get(keys.targets), section.get(keys.sources)
    sources = [folder for folder in (listed if isinstance(listed, list) else [listed]) if folder]
    folders = [(keys.targets, targets), *((keys.sources, s) for s in sources or [None])]
    faults = [fault for key, value in folders if (fault := _no_folder(place, key, value, base))]
    yield from faults
    if faults:
        return
    suffix, repeats = section.get(keys.text_suffix), section.get("num_repeats", 1)
    default = section.get(keys.instruction) if keys.instruction else None
    if isinstance(repeats, bool) or not isinstance(repeats, int | float) or not 0 < repeats < inf:
        yield Fault(place, f"num_repeats is {repeats!r:.60}", "write a number above 0")
        return
    yield from read_stems(
        StemFolders(
            targets=as_stored(base / str(targets)),
            sources=tuple(as_stored(base / str(source)) for source in sources),
            root=base,
            text_suffix=f".{suffix.lstrip('.')}" if isinstance(suffix, str) else ".txt",
            instruction=default if isinstance(default, str) else None,
            weight=float(repeats),
            numbered=keys.numbered,
        )
    )


def _no_folder(place: str, key: str, value: object, base: Path) -> Fault | None:
    if not isinstance(value, str):
        found = f"no {key}" if value is None else f"{key} is {value!r:.60}"
        return Fault(place, found, f"write the folder in {key}")
    return _not_there(place, key, value, base, os.path.isdir)


def _not_there(
    place: str, key: str, value: str, base: Path, is_one: Callable[[Path], bool]
) -> Fault | None:
    try:
        check_path(value)
    except Unreadable as error:
        return Fault(place, f"{key}: {error.found}", error.cure)
    if is_one(as_stored(base / value)):
        return None
    cure = "paths are relative to this file: fix the path or add the files"
    return Fault(place, f"{key}: {base / value}: {found_at(as_stored(base / value))}", cure)
