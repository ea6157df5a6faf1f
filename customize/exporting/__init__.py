"""Exporting: an adapter in, files of other programs' layouts out and back, whole or not at all.

`export` writes one target; `export_all` a folder with every target that can hold the adapter and a
README that says which file goes where. What each program reads was measured on the programs
themselves (docs/frontends.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from customize.errors import ExportError
from customize.exporting.targets import (
    DIFFUSERS_ALONE,
    ELSEWHERE,
    TARGETS,
    ExportOptions,
    Target,
    Written,
    check_request,
)
from customize.files import Used, check_place
from customize.files.lock import in_use
from customize.files.manifest import Manifest

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.exporting.every_target import Exports
    from customize.families.base import Base
    from customize.scoring.items import Models

__all__ = ["TARGETS", "ExportOptions", "Target", "Written", "export", "export_all"]


def export(
    adapter: AdapterFile,
    base: Base,
    target: Target,
    folder: Path,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
) -> Written:
    """Write `adapter` for `target` into `folder`.

    `base` is the one it was made for; its weights are read only where the layout needs them (DoRA
    that is baked, custom-diffusion, full-model). Raises ExportError, with nothing written, where
    the target cannot hold the adapter or its program cannot open the base, and OutputExistsError
    for files that are there.
    """
    from customize.exporting import write
    from customize.exporting.save import key_of, slot
    from customize.exporting.sharing.first_edit import usual_base_of

    options = options or ExportOptions()
    check_request(adapter, base, options)
    usual = usual_base_of(base)
    if usual is not None and usual.diffusers_alone and target in ELSEWHERE:
        known = ", ".join(each for each in TARGETS if each not in ELSEWHERE)
        raise ExportError(f"{target}: {DIFFUSERS_ALONE}; expected one of {known}; choose one")
    check_place(folder, [Used("the base", base.folder)], folder=True)
    with in_use(folder):
        key = f"{target} {key_of(adapter, base, options)}"
        with slot(Manifest(folder, f"export {target}"), key, overwrite=overwrite) as taken:
            return write.write(adapter, base, target, folder, options, taken)


def export_all(
    adapter: AdapterFile,
    base: Base,
    folder: Path,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    verify: bool = True,
    models: Models | None = None,
) -> Exports:
    """Write every target that can hold `adapter` into a folder of its own, and a README.

    `verify` reads every target back and removes what is not the adapter, so that the README lists
    what is there; `models` holds the CLIP for a cut adapter's edits. A call that was killed goes on
    when it is repeated. `overwrite` replaces what an earlier call wrote, and nothing else. Raises
    OutputExistsError, before anything is written, where one of the folders is there, and
    ExportError, with everything as it was, where no target is left.
    """
    from customize.exporting import every_target

    options = options or ExportOptions()
    check_request(adapter, base, options)
    check_place(folder, [Used("the base", base.folder)], folder=True)
    with in_use(folder):
        return every_target.write_all(
            *(adapter, base, folder, options), overwrite=overwrite, verify=verify, models=models
        )
