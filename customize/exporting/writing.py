"""Plan the files of one target, then write them all under temporary names and move them in."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from customize.errors import ExportError
from customize.exporting import Options, Target, Written
from customize.exporting.embeddings import file_name
from customize.exporting.guide import notes_of
from customize.exporting.places import refuse_existing
from customize.exporting.plans import Plan, is_xl, plan_weights, plan_words

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.bases import Base

# Programs that show NAME.json and NAME.png beside NAME.safetensors.
SHOWN: frozenset[Target] = frozenset({"kohya", "comfyui", "a1111", "invokeai"})


def write(
    adapter: AdapterFile,
    base: Base,
    target: Target,
    folder: Path,
    options: Options,
    *,
    overwrite: bool,
) -> Written:
    """Write one target; see `customize.exporting.export`."""
    from customize.exporting.native import from_native
    from customize.families.weights import BaseWeights

    check(adapter, base, options)
    options = replace(options, name=options.name or _name_of(adapter))
    weights = BaseWeights(base)
    changes = from_native(adapter, weights)
    if not changes.layers and target != "full-model":
        raise ExportError(
            f"{target}: the adapter holds words and no weights; expected weights to write; use the "
            "embedding files of the target full-model, or teach layers as well"
        )
    xl = is_xl(adapter)
    words = plan_words(changes, xl=xl)
    if target == "full-model":
        return _write_full_model(adapter, base, folder, options, words, overwrite)
    fitted, plan = plan_weights(adapter, base, target, changes, weights, options)
    notes = tuple(notes_of(target, plan, fitted.changes))
    if target in SHOWN:
        beside = [folder / f"{options.name}.{kind}" for kind in ("json", "png")]
        refuse_existing(*beside, overwrite=overwrite)
    files = save_all(folder, plan | words, overwrite=overwrite)
    if target in SHOWN:
        files += _show(adapter, files[0], target, options, overwrite=overwrite)
    return Written(target, folder, files, notes, fitted.errors)


def _show(
    adapter: AdapterFile, weights: Path, target: Target, options: Options, *, overwrite: bool
) -> tuple[Path, ...]:
    """Write the description and the picture that programs show beside the weights."""
    from PIL import Image

    from customize.exporting.sidecars import write_sidecars

    header = adapter.header
    if options.preview is None:
        return write_sidecars(header, weights, target, overwrite=overwrite)
    with Image.open(options.preview) as preview:
        return write_sidecars(header, weights, target, preview=preview, overwrite=overwrite)


def save_all(folder: Path, plan: Plan, *, overwrite: bool) -> tuple[Path, ...]:
    """Write every file of the plan or none; raises OutputExistsError before anything is written."""
    from safetensors.torch import save_file

    places = [folder / name for name in plan]
    refuse_existing(*places, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    try:
        for name, content in plan.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                place.write_text(content, encoding="utf-8")
            else:
                tensors = {key: tensor.contiguous() for key, tensor in content.tensors.items()}
                save_file(tensors, place, dict(content.metadata))
        for name, place in zip(plan, places, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tuple(places)


def _write_full_model(
    adapter: AdapterFile, base: Base, folder: Path, options: Options, words: Plan, overwrite: bool
) -> Written:
    """Write base and adapter as one; words go beside the single file, which cannot hold them."""
    import torch

    from customize.exporting.full_model import write_full_model

    assert options.name is not None
    dtype = getattr(torch, options.dtype)
    files, notes = write_full_model(
        adapter, base, folder, options.name, dtype=dtype, overwrite=overwrite
    )
    files += save_all(folder, words, overwrite=True)
    return Written("full-model", folder, files, notes)


def check(adapter: AdapterFile, base: Base, options: Options) -> None:
    """Refuse a base of another family and limits that contradict each other."""
    from customize.adapters.file import other_base

    other_base(adapter.header, base)
    if options.size_mb is not None and (options.energy, options.error) != (None, None):
        raise ExportError(
            "--size-mb chooses the energy itself, and --energy or --error was given too; expected "
            "one of them; leave the other out"
        )
    for name, value, highest in (
        ("rank", options.rank, None),
        ("energy", options.energy, 1),
        ("error", options.error, 1),
        ("size-mb", options.size_mb, None),
    ):
        if value is not None and (value <= 0 or (highest is not None and value > highest)):
            limit = f"above 0 and at most {highest}" if highest else "above 0"
            raise ExportError(f"--{name} {value:g}: expected a number {limit}; give such a one")


def _name_of(adapter: AdapterFile) -> str:
    """Name the files after the concepts."""
    names = [file_name(concept.name) for concept in adapter.header.concepts]
    return "_".join(names)[:80] or "adapter"
