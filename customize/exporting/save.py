"""Put the files of a target into its folder: all made aside first, then moved in, all or none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from customize import __version__
from customize.exporting.file_plan import Content, FilePlan
from customize.exporting.targets import ExportOptions
from customize.files import make_folder, refuse_existing
from customize.files.disk import naming_disk
from customize.files.manifest import Manifest
from customize.files.write import open_to_readers, temporary_folder

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base

Build = Callable[[Path], None]
"""Writes more files, a whole model's, into the folder given."""


@dataclass
class Slot:
    """The right to put the files of one export into a folder, under the list of what runs wrote.

    What a killed export of the same `key` left may be written over, and what a finished one wrote
    if `overwrite` says so. `part` is for a target of several, which begin and end together.
    """

    manifest: Manifest
    key: str
    overwrite: bool = False
    part: bool = False
    begun: bool = False

    def check(self, places: Sequence[Path]) -> None:
        """Raise OutputExistsError where one of the places is taken."""
        goes_on = self.part or (self.manifest.unfinished and self.manifest.own.key == self.key)
        refuse_existing(*places, overwrite=self.overwrite or goes_on)
        self.manifest.check(self._names(places))

    def claim(self, places: Sequence[Path]) -> None:
        """Take the places, which are then written; raises as `check` does, with none taken."""
        self.check(places)
        names, self.begun = self._names(places), True
        if self.part:
            self.manifest.claim(names)
        elif self.overwrite:
            self.manifest.begin_anew(names, self.key, replaces=_same_files(names))
        else:
            self.manifest.begin(names, self.key)

    def _names(self, places: Sequence[Path]) -> list[str]:
        return [place.relative_to(self.manifest.folder).as_posix() for place in places]


@contextmanager
def slot(manifest: Manifest, key: str, *, overwrite: bool) -> Iterator[Slot]:
    """Give the slot of one target; where its export fails everything is as it was."""
    taken = Slot(manifest, key, overwrite)
    try:
        yield taken
    except BaseException:
        if taken.begun:
            manifest.undo()
        raise
    manifest.finish()


def save_all(
    folder: Path, plan: FilePlan, taken: Slot, build: Build | None = None
) -> tuple[Path, ...]:
    """Write every file of the plan, and those that `build` makes, or none.

    Returns the built ones first. Raises OutputExistsError before anything is moved in, and
    OutputError for a full disk.
    """
    planned = [folder / name for name in plan]
    taken.check(planned)
    with naming_disk(folder), temporary_folder(folder) as temporary:
        for name, content in plan.items():
            _save(content, temporary / name)
        if build is not None:
            build(temporary)
        open_to_readers(temporary)
        made = [folder / p.relative_to(temporary) for p in temporary.rglob("*") if p.is_file()]
        built = sorted({*made} - {*planned}, key=lambda path: (len(path.parts), path))
        taken.claim([*built, *planned])
        for path in sorted(temporary.iterdir()):
            _move_in(path, folder / path.name)
    return (*built, *planned)


def _same_files(names: Sequence[str]) -> Callable[[str], bool]:
    """Tell the names that a new export takes from an older one: its own, and all of its model."""
    models = {name.partition("/")[0] for name in names if "/" in name} - {"embeddings"}
    return lambda name: name in names or name.partition("/")[0] in models


def key_of(adapter: AdapterFile, base: Base, options: ExportOptions) -> str:
    """Hash all that an export follows from."""
    from customize.files.tensors import bytes_of

    digest = hashlib.sha256()
    for name in sorted(adapter.tensors):
        tensor = adapter.tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(bytes_of(tensor))
    facts = {
        "header": asdict(adapter.header),
        "base": base.fingerprint,
        "options": asdict(options),
        "version": __version__,
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _move_in(path: Path, place: Path) -> None:
    """Move a file, or a folder as a whole where none is there, which no kill can cut in two."""
    if path.is_dir() and place.is_dir():
        for inside in sorted(path.iterdir()):
            _move_in(inside, place / inside.name)
        return
    make_folder(place.parent)
    with naming_disk(place, everything=True):
        os.replace(path, place)


def _save(content: Content | str | bytes, place: Path) -> None:
    from customize.files.tensors import write_safetensors

    place.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case str():
            place.write_text(content, encoding="utf-8")
        case bytes():
            place.write_bytes(content)
        case Content(tensors, metadata):
            write_safetensors(place, tensors, metadata)
