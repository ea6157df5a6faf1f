"""Base and adapter as one model: a diffusers folder, and a single file for ComfyUI and A1111.

The folder holds the concepts' words in its tokenizer and text encoder. A single file cannot: every
program brings its own vocabulary of the usual size, so words go in embedding files beside it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.adapters.header_facts import shareable
from customize.families import family_of_pipeline, profile_of
from customize.families.loading.default_precision import open_in_float32
from customize.files import forget_places

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from customize.adapters.file import AdapterFile
    from customize.families.base import Base
    from customize.families.profile import Profile

_KEPT = ("customize.json", "clip")
_VOCABULARY = ("vocab.json", "merges.txt")


def write_full_model(
    adapter: AdapterFile,
    base: Base,
    place: Path,
    name: str,
    *,
    dtype: torch.dtype,
) -> None:
    """Write `NAME.safetensors` and the diffusers folder `NAME` into the empty folder `place`.

    Weights are added in float32 and kept in `dtype`. Raises AdapterFileError where the adapter does
    not fit.
    """
    from customize.families.loading.quiet import errors_only

    with errors_only():
        _write(adapter, base, place / f"{name}.safetensors", place / name, dtype)


def merged_pipeline(adapter: AdapterFile, base: Base, dtype: torch.dtype) -> Any:
    """Open the base in `dtype` on the CPU with the adapter's changes and words in its weights."""
    from customize.adapters.apply import apply_adapters
    from customize.families import open_pipeline

    pipeline = open_pipeline(base, dtype=dtype)
    apply_adapters(pipeline, [(adapter, 1.0)])
    return pipeline


def pipeline_weights(pipeline: Any) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts of the components that hold weights, by name."""
    components = profile_of(family_of_pipeline(pipeline)).components
    return {name: getattr(pipeline, name).state_dict() for name in components}


def _write(
    adapter: AdapterFile, base: Base, single: Path, folder: Path, dtype: torch.dtype
) -> None:
    """Write both forms, the single file first: its vocabulary is still the base's."""
    import torch

    from customize.exporting.whole_model.single_file_keys import to_single_file

    wordless = {n: t for n, t in adapter.tensors.items() if not n.startswith("words.")}
    pipeline = merged_pipeline(replace(adapter, tensors=wordless), base, dtype)
    profile = profile_of(base.family)
    configs = {part: getattr(pipeline, part).config for part in (profile.denoiser, "vae")}
    tensors = to_single_file(pipeline_weights(pipeline), configs)
    tensors |= dict.fromkeys(_markers(profile, pipeline), torch.empty(0))
    _save(tensors, single, _metadata(adapter, profile, pipeline))
    if len(wordless) < len(adapter.tensors):
        from customize.adapters.apply import apply_adapters

        only_words = {n: t for n, t in adapter.tensors.items() if n.startswith("words.")}
        apply_adapters(pipeline, [(replace(adapter, tensors=only_words), 1.0)])
    pipeline.save_pretrained(folder, safe_serialization=True)
    forget_places(folder)
    open_in_float32(folder)
    words = (f"{tokenizer}/{file}" for tokenizer in profile.tokenizers for file in _VOCABULARY)
    for kept in (*_KEPT, *words):
        _copy(base.folder / kept, folder / kept)


def _markers(profile: Profile, pipeline: Any) -> list[str]:
    """Name the empty tensors by which ComfyUI and A1111 know a model that predicts velocity."""
    schedule = pipeline.scheduler.config
    predicts_v = schedule.get("prediction_type") == "v_prediction"
    if not (predicts_v and profile.front_ends.marks_v_prediction):
        return []
    return ["v_pred", "ztsnr"] if schedule.get("rescale_betas_zero_snr") else ["v_pred"]


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    from customize.files.tensors import write_safetensors

    write_safetensors(path, tensors, metadata)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _metadata(adapter: AdapterFile, profile: Profile, pipeline: Any) -> dict[str, str]:
    """Describe the file by the ModelSpec's names, and keep the noise schedule, which has none."""
    header = adapter.header
    concepts = ", ".join(concept.name for concept in header.concepts)
    schedule = dict(pipeline.scheduler.config)
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{profile.front_ends.architecture}/instruct-pix2pix",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": concepts or header.method,
        "modelspec.merged_from": shareable(header.base_name),
        "modelspec.prediction_type": str(schedule.get("prediction_type", "epsilon")),
        "customize.scheduler": json.dumps(schedule, default=str),
    }


def _copy(source: Path, target: Path) -> None:
    """Copy what diffusers does not write: sampling settings, and files that older programs read."""
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file() and not target.exists():
        shutil.copy(source, target)


def notes_of_model(name: str, words: list[str]) -> list[str]:
    """Say what the two forms are for."""
    notes = [f"{name}/ is for diffusers, {name}.safetensors for ComfyUI's and A1111's checkpoints"]
    if words:
        notes.append(
            f"the folder knows {', '.join(words)}; a single file's vocabulary cannot grow: "
            "use the embedding files with it"
        )
    return notes
