"""Export to every target, each noted when it is done: a killed call goes on when repeated."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.errors import ExportError
from customize.exporting import write
from customize.exporting.proof import prove
from customize.exporting.save import Slot, key_of
from customize.exporting.sharing import readme
from customize.exporting.sharing.first_edit import first_edit
from customize.exporting.targets import (
    DIFFUSERS_ALONE,
    ELSEWHERE,
    TARGETS,
    ExportOptions,
    Target,
    Written,
)
from customize.files import refuse_existing
from customize.files.manifest import Manifest, digest_of

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.exporting.proof.prove import Proofs
    from customize.families.base import Base
    from customize.scoring.items import Models


@dataclass(frozen=True)
class Exports:
    """What `export_all` made: the targets that are there, and why the others are not.

    `refused` cannot hold the adapter; `proofs` is None where nothing was to be verified, and names
    the targets that failed and were removed.
    """

    written: tuple[Written, ...]
    refused: Mapping[Target, str]
    guide: Path
    proofs: Proofs | None = None


def write_all(
    adapter: AdapterFile,
    base: Base,
    folder: Path,
    options: ExportOptions,
    *,
    overwrite: bool,
    verify: bool,
    models: Models | None,
) -> Exports:
    """Write every target; see `customize.exporting.export_all`."""
    written, refused = list[Written](), dict[Target, str]()
    with _begun(folder, f"all {key_of(adapter, base, options)}", overwrite) as taken:
        for target in TARGETS:
            try:
                written.append(_one(taken, adapter, base, target, options))
            except ExportError as error:
                refused[target] = str(error)
        proofs = prove.prove(written, adapter, base, models=models) if verify else None
        failed = proofs.failed if proofs else {}
        written = [one for one in written if one.target not in failed]
        if not written:
            reasons = "; ".join([*refused.values(), *failed.values()])
            raise ExportError(f"no target can hold the adapter: {reasons}")
        edit = first_edit(adapter, base, written[0].options.name or "")
        if edit.diffusers_alone and any(one.target in ELSEWHERE for one in written):
            warnings.warn(f"{folder}: {DIFFUSERS_ALONE}", stacklevel=3)
        guide = readme.write_readme(folder, written, {**refused, **failed}, proofs, edit=edit)
    return Exports(tuple(written), refused, guide, proofs)


@contextmanager
def _begun(folder: Path, key: str, overwrite: bool) -> Iterator[Slot]:
    """Take the folder for all targets, or go on where a call of the same key was killed.

    Where it fails everything is as it was; what was stopped by hand stays, to go on.
    """
    manifest = Manifest(folder, "export all", readme.NAME)
    if not (manifest.unfinished and manifest.own.key == key):
        places = [folder / readme.NAME, *(folder / target for target in TARGETS)]
        refuse_existing(*places, overwrite=overwrite)
        (manifest.begin_anew if overwrite else manifest.begin)((readme.NAME,), key)
    try:
        yield Slot(manifest, key, part=True)
    except Exception:
        manifest.undo()
        raise
    manifest.own.parts = {}
    manifest.finish()


def _one(
    taken: Slot, adapter: AdapterFile, base: Base, target: Target, options: ExportOptions
) -> Written:
    """Write a target, or find it written; raises ExportError where it cannot hold the adapter."""
    folder, parts = taken.manifest.folder / target, taken.manifest.own.parts
    known = parts.get(target)
    if known and (found := _found(known, folder, options)):
        return found
    written = write.write(adapter, base, target, folder, options, taken)
    parts[target] = _record(written)
    taken.manifest.save()
    return written


def _record(written: Written) -> dict[str, Any]:
    files = {p.relative_to(written.folder).as_posix(): digest_of(p) for p in written.files}
    return {
        "files": files,
        "notes": written.notes,
        "errors": dict(written.errors),
        "name": written.options.name,
    }


def _found(record: Mapping[str, Any], folder: Path, options: ExportOptions) -> Written | None:
    """Return the target of a record, None where its files are not what was written."""
    files = {folder / name: known for name, known in record["files"].items()}
    if not all(path.is_file() and digest_of(path) == known for path, known in files.items()):
        return None
    target: Any = folder.name
    options = replace(options, name=record["name"])
    return Written(target, folder, (*files,), tuple(record["notes"]), record["errors"], options)
