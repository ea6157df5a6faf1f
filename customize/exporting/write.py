"""Plan the files of one target, and have them written."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from customize.errors import ExportError
from customize.exporting.file_plan import FilePlan, plan_weights, plan_words
from customize.exporting.formats.embeddings import file_name
from customize.exporting.save import Slot, save_all
from customize.exporting.sharing.comfyui_workflow import plan_workflow
from customize.exporting.sharing.first_edit import first_edit
from customize.exporting.sharing.readme import notes_of, notes_of_words
from customize.exporting.targets import ExportOptions, Target, Written, check_request, check_target
from customize.families import profile_of

if TYPE_CHECKING:
    from PIL import Image

    from customize.adapters.file import AdapterFile
    from customize.exporting.changes import Changes
    from customize.families.base import Base

# Programs that show NAME.json and NAME.png beside NAME.safetensors.
SHOWN: frozenset[Target] = frozenset({"kohya", "comfyui", "a1111", "invokeai"})
# Programs that read words whether weights come with them or not.
_WORDS_ALONE: frozenset[Target] = frozenset({*SHOWN, "diffusers"})


def write(
    adapter: AdapterFile,
    base: Base,
    target: Target,
    folder: Path,
    options: ExportOptions,
    taken: Slot,
) -> Written:
    """Write one target; see `customize.exporting.export`. Its files go to the slot `taken`."""
    from customize.exporting.formats.native import from_native
    from customize.exporting.sharing.sidecars import plan_sidecars
    from customize.families.loading.layer_weights import BaseWeights

    check_request(adapter, base, options)
    check_target(target, profile_of(base.family).front_ends)
    name = options.name or _name_of(adapter)
    options = replace(options, name=name)
    weights = BaseWeights(base)
    changes = from_native(adapter, weights)
    edit = first_edit(adapter, base, name)
    words = plan_words(changes, base)
    if target == "full-model":
        beside = words | plan_workflow(edit, whole=True)
        return _write_full_model(adapter, base, folder, options, beside, taken)
    workflow = plan_workflow(edit) if target == "comfyui" else {}
    if not changes.layers:
        return _write_words(target, folder, options, words, workflow, changes, taken)
    preview = _preview(options.preview) if target in SHOWN and options.preview else None
    fitted, plan = plan_weights(adapter, base, target, changes, weights, options)
    notes = tuple(notes_of(target, plan, fitted.changes, profile_of(base.family)))
    beside = plan_sidecars(adapter.header, name, target, preview) if target in SHOWN else {}
    files = save_all(folder, plan | words | beside | workflow, taken)
    return Written(target, folder, files, notes, fitted.errors, options)


def _write_words(
    target: Target,
    folder: Path,
    options: ExportOptions,
    plan: FilePlan,
    workflow: FilePlan,
    changes: Changes,
    taken: Slot,
) -> Written:
    """Write the words of an adapter that holds nothing else."""
    if not plan or target not in _WORDS_ALONE:
        raise ExportError(
            f"{target}: the adapter holds {'words and ' * bool(plan)}no weights; expected weights "
            "to write; export words to one of the other programs, or teach layers as well"
        )
    files = save_all(folder, plan | workflow, taken)
    notes = ("the adapter holds words and no weights: the embedding files are all of it",)
    return Written(target, folder, files, notes + tuple(notes_of_words(changes)), {}, options)


def _preview(path: Path) -> Image.Image | None:
    """Open the picture to show; one that is broken is left out."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        warnings.warn(f"no preview beside the weights: {path} is broken ({error})", stacklevel=2)
        return None


def _write_full_model(
    adapter: AdapterFile,
    base: Base,
    folder: Path,
    options: ExportOptions,
    beside: FilePlan,
    taken: Slot,
) -> Written:
    """Write base and adapter as one.

    What goes `beside` the single file are words, which it cannot hold, and a workflow.
    """
    import torch

    from customize.adapters.deltas import words as words_of
    from customize.exporting.whole_model.full_model import notes_of_model, write_full_model

    name, dtype = options.name, getattr(torch, options.dtype)
    assert name is not None
    taken.check([folder / f"{name}.safetensors", folder / name])
    files = save_all(
        *(folder, beside, taken),
        build=lambda place: write_full_model(adapter, base, place, name, dtype=dtype),
    )
    notes = tuple(notes_of_model(name, list(words_of(adapter))))
    return Written("full-model", folder, files, notes, {}, options)


def _name_of(adapter: AdapterFile) -> str:
    """Name the files after the concepts; `embeddings` is the words' folder."""
    name = file_name("_".join(file_name(concept.name) for concept in adapter.header.concepts)[:80])
    named = adapter.header.concepts and name != "embeddings"
    return name if named else "adapter"
