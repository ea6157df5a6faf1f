"""Exporting: an adapter in, files of other programs' layouts out and back, whole or not at all.

`export` writes one target; `export_all` a folder with every target that can hold the adapter and a
README that says which file goes where. What each program reads was measured on the programs
themselves (docs/frontends.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from customize.errors import ExportError
from customize.exporting.targets import TARGETS, Options, Target, Written, check
from customize.files import refuse_existing, set_aside

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.exporting.proof.prove import Proofs
    from customize.families.base import Base
    from customize.scoring.items import Models

__all__ = ["TARGETS", "Exports", "Options", "Target", "Written", "export", "export_all"]


def export(
    adapter: AdapterFile,
    base: Base,
    target: Target,
    folder: Path,
    options: Options | None = None,
    *,
    overwrite: bool = False,
) -> Written:
    """Write `adapter` for `target` into `folder`.

    `base` is the one it was made for; its weights are read only where the layout needs them (DoRA
    that is baked, custom-diffusion, full-model). Raises ExportError, with nothing written, where
    the target cannot hold the adapter, and OutputExistsError for files that are there.
    """
    from customize.exporting import write

    return write.write(adapter, base, target, folder, options or Options(), overwrite=overwrite)


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


def export_all(
    adapter: AdapterFile,
    base: Base,
    folder: Path,
    options: Options | None = None,
    *,
    overwrite: bool = False,
    verify: bool = True,
    models: Models | None = None,
) -> Exports:
    """Write every target that can hold `adapter` into a folder of its own, and a README.

    `verify` reads every target back and removes what is not the adapter, so that the README lists
    what is there; `models` holds the CLIP for a cut adapter's edits. `overwrite` replaces the
    folders of an earlier README whole, and single files elsewhere. Raises OutputExistsError before
    anything is written where one of the folders is there, and ExportError where no target is left.
    """
    from customize.exporting.sharing import readme

    check(adapter, base, options or Options())
    folders = [folder / target for target in TARGETS]
    refuse_existing(folder / readme.NAME, *folders, overwrite=overwrite)
    earlier = folders if readme.is_there(folder) else []
    with set_aside(*earlier):
        return _export_all(adapter, base, folder, options, overwrite, verify, models)


def _export_all(
    adapter: AdapterFile,
    base: Base,
    folder: Path,
    options: Options | None,
    overwrite: bool,
    verify: bool,
    models: Models | None,
) -> Exports:
    from customize.exporting.proof import prove
    from customize.exporting.sharing import readme
    from customize.families import profile_of

    written, refused = list[Written](), dict[Target, str]()
    for target in TARGETS:
        try:
            place = folder / target
            written.append(export(adapter, base, target, place, options, overwrite=overwrite))
        except ExportError as error:
            refused[target] = str(error)
    proofs = prove.prove(written, adapter, base, models=models) if verify else None
    failed = proofs.failed if proofs else {}
    written = [one for one in written if one.target not in failed]
    if not written:
        reasons = "; ".join([*refused.values(), *failed.values()])
        raise ExportError(f"no target can hold the adapter: {reasons}")
    edits = profile_of(base.family).front_ends.edits
    guide = readme.write(folder, written, {**refused, **failed}, proofs, edits=edits)
    return Exports(tuple(written), refused, guide, proofs)
