"""Write an adapter for other programs: one file layout each, whole or not at all.

`export` writes one target; `export_all` a folder with every target that can hold the adapter and a
README that says which file goes where. What each program reads was measured on the programs
themselves (docs/frontends.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from customize.errors import ExportError
from customize.files import refuse_existing, set_aside

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.exporting.verifying import Proofs
    from customize.families.base import Base
    from customize.scoring.items import Models

Target = Literal[
    "kohya",
    "diffusers",
    "comfyui",
    "a1111",
    "invokeai",
    "peft",
    "custom-diffusion",
    "full-model",
]
TARGETS: tuple[Target, ...] = get_args(Target)
Precision = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True)
class Options:
    """How files are named and how closely they follow the adapter.

    `name` is the files' stem, None the adapter's first concept. Low-rank targets take the least
    rank that satisfies every limit given: at most `rank`, at least the share `energy` of the summed
    singular values, at most the relative `error` of a layer, at most `size_mb` (10^6 bytes) for the
    weights' file. Without a limit nothing is lost. `dtype` is raised to float32 for a tensor that
    it would change by more than its own precision. `preview` is a picture to show beside the
    weights.
    """

    name: str | None = None
    rank: int | None = None
    energy: float | None = None
    error: float | None = None
    size_mb: float | None = None
    dtype: Precision = "float16"
    preview: Path | None = None

    @property
    def limited(self) -> bool:
        """Tell whether low rank may lose anything."""
        return (self.rank, self.energy, self.error, self.size_mb) != (None,) * 4


@dataclass(frozen=True)
class Written:
    """What one target got in its folder: files, the weights' first, and what people must know.

    `options` are those it was written with. `errors` has the relative error (Frobenius) of each
    layer's change against the adapter's own, rounding included.
    """

    target: Target
    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    options: Options = field(default_factory=Options)

    @property
    def largest_error(self) -> float:
        """Return the largest relative error of a layer, 0 where nothing is lost."""
        return max(self.errors.values(), default=0.0)


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
    from customize.exporting import writing

    return writing.write(adapter, base, target, folder, options or Options(), overwrite=overwrite)


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
    from customize.exporting import checks, guide

    checks.check(adapter, base, options or Options())
    folders = [folder / target for target in TARGETS]
    refuse_existing(folder / guide.NAME, *folders, overwrite=overwrite)
    earlier = folders if guide.is_there(folder) else []
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
    from customize.exporting import guide, verifying

    written, refused = list[Written](), dict[Target, str]()
    for target in TARGETS:
        try:
            place = folder / target
            written.append(export(adapter, base, target, place, options, overwrite=overwrite))
        except ExportError as error:
            refused[target] = str(error)
    proofs = verifying.prove(written, adapter, base, models=models) if verify else None
    failed = proofs.failed if proofs else {}
    written = [one for one in written if one.target not in failed]
    if not written:
        reasons = "; ".join([*refused.values(), *failed.values()])
        raise ExportError(f"no target can hold the adapter: {reasons}")
    readme = guide.write(folder, written, {**refused, **failed}, proofs)
    return Exports(tuple(written), refused, readme, proofs)
