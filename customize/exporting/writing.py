"""Plan the files of one target, then write them all under temporary names and move them in."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from torch import Tensor

from customize.errors import ExportError
from customize.exporting import Options, Target, Written
from customize.exporting.changes import Changes
from customize.exporting.embeddings import file_name
from customize.exporting.fitting import Fitted, Holds, fit
from customize.exporting.places import refuse_existing

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.bases import Base
    from customize.families.weights import BaseWeights

HOLDS: Mapping[Target, Holds] = {
    "kohya": Holds(),
    "diffusers": Holds(dora=True),
    "comfyui": Holds(full=True),
    "a1111": Holds(full=True),
    "invokeai": Holds(full=True),
    "peft": Holds(dora=True),
}
# Programs that show NAME.json and NAME.png beside NAME.safetensors.
SHOWN: frozenset[Target] = frozenset({"kohya", "comfyui", "a1111", "invokeai"})
_MODELS = ("denoiser", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Content:
    """A safetensors file to be."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


# What goes where in the target's folder: tensors, or the text of a small file.
Plan = dict[str, Content | str]


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

    _check(adapter, base, options)
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
    fitted, plan = _plan(adapter, base, target, changes, weights, options)
    notes = tuple(_notes(target, plan, changes))
    if target in SHOWN:
        beside = [folder / f"{options.name}.{kind}" for kind in ("json", "png")]
        refuse_existing(*beside, overwrite=overwrite)
    files = save_all(folder, plan | words, overwrite=overwrite)
    if target in SHOWN:
        files += _show(adapter, files[0], target, options, overwrite=overwrite)
    return Written(target, files, notes, fitted.errors)


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


def is_xl(adapter: AdapterFile) -> bool:
    """Tell whether an adapter is for the SDXL geometry, which has two text encoders."""
    return adapter.header.family == "instruct_pix2pix_xl"


def plan_words(changes: Changes, *, xl: bool) -> Plan:
    """Plan an embedding file for each word, in a folder beside the weights."""
    from customize.exporting.embeddings import PAIR, to_embedding

    plan: Plan = {}
    needed = set(PAIR.values()) if xl else {"text_encoder"}
    for word, rows in changes.words.items():
        if missing := sorted(needed - set(rows)):
            raise ExportError(
                f"the word {word} has no rows for {missing[0]}; expected rows for "
                f"{' and '.join(sorted(needed))}; teach the word again on this base"
            )
        place = f"embeddings/{file_name(word)}.safetensors"
        if place in plan:
            raise ExportError(
                f"the word {word} would share the file {place} with another word; expected words "
                "that differ in letters and digits; teach one again under another name"
            )
        plan[place] = Content(to_embedding(rows, xl=xl), {"format": "pt"})
    return plan


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


def _plan(
    adapter: AdapterFile,
    base: Base,
    target: Target,
    changes: Changes,
    weights: BaseWeights,
    options: Options,
) -> tuple[Fitted, Plan]:
    """Fit the changes to the target and lay its weights' files out."""
    if target == "custom-diffusion":
        return Fitted(changes, {}), _plan_custom_diffusion(changes, weights, options)
    fitted = fit(changes, HOLDS[target], weights, options, _progress(target))
    xl, name = is_xl(adapter), options.name
    assert name is not None
    match target:
        case "kohya" | "comfyui" | "invokeai" | "a1111":
            from customize.exporting.embeddings import to_bundle
            from customize.exporting.kohya import to_kohya

            tensors = to_kohya(fitted.changes, xl=xl)
            # Only A1111 registers bundled words; diffusers refuses a file that has them.
            if target == "a1111":
                tensors |= to_bundle(changes.words, xl=xl)
            place, facts = f"{name}.safetensors", {}
        case "diffusers":
            from customize.exporting.diffusers_lora import FILE, metadata_of, to_diffusers

            tensors = to_diffusers(fitted.changes)
            place, facts = FILE, metadata_of(fitted.changes)
        case "peft":
            return fitted, _plan_peft(fitted.changes, base)
        case "full-model":
            raise AssertionError("a full model is written by its own module")
        case _:
            assert_never(target)
    from customize.exporting.metadata import describe, hashes

    facts = describe(adapter.header, fitted.changes, base, name, xl=xl) | facts
    return fitted, {place: Content(tensors, facts | hashes(tensors, facts))}


def _plan_peft(changes: Changes, base: Base) -> Plan:
    """Lay out a folder for each model that the adapter changes."""
    from customize.exporting.diffusers_lora import PREFIXES
    from customize.exporting.peft_folder import CONFIG, WEIGHTS, to_peft

    plan: Plan = {}
    for model in _MODELS:
        if not any(layer.startswith(f"{model}.") for layer in changes.layers):
            continue
        tensors, config = to_peft(changes, model)
        place = PREFIXES[model].removesuffix(".")
        config |= {"base_model_name_or_path": base.name}
        plan[f"{place}/{WEIGHTS}"] = Content(tensors, {"format": "pt"})
        plan[f"{place}/{CONFIG}"] = json.dumps(config, indent=2) + "\n"
    return plan


def _plan_custom_diffusion(changes: Changes, weights: BaseWeights, options: Options) -> Plan:
    from customize.exporting.custom_diffusion import FILE, to_custom_diffusion

    if (options.rank, options.energy, options.error, options.size_mb) != (None,) * 4:
        raise ExportError(
            "custom-diffusion: it holds whole weights; expected no limit of rank or size; "
            "leave --rank, --energy, --error and --size-mb out, or export to diffusers"
        )
    tensors = to_custom_diffusion(changes, weights.layers(), weights)
    return {FILE: Content(tensors, {"format": "pt"})}


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
    return Written("full-model", (*files, *save_all(folder, words, overwrite=True)), notes)


def _check(adapter: AdapterFile, base: Base, options: Options) -> None:
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


def _progress(target: Target) -> Callable[[Iterable[str]], Iterator[str]]:
    def bar(layers: Iterable[str]) -> Iterator[str]:
        from tqdm import tqdm

        return iter(tqdm(list(layers), desc=target, unit="layer", disable=None, leave=False))

    return bar


def _notes(target: Target, plan: Plan, changes: Changes) -> Iterator[str]:
    """Tell what people must do with the files, and what the target does not read."""
    names = [name for name, content in plan.items() if isinstance(content, Content)]
    yield f"{', '.join(names)}: {USES[target]}"
    for word in changes.words:
        name = file_name(word)
        yield (
            f"embeddings/{name}.safetensors: for {word} write `embedding:{name}` in ComfyUI, "
            f"`{name}` in A1111 and Forge, `<{name}>` in InvokeAI; diffusers: "
            f'load_textual_inversion(file, token="{word}")'
        )


USES: Mapping[Target, str] = {
    "kohya": "ComfyUI models/loras, A1111 and Forge models/Lora, InvokeAI's model manager, "
    "kohya's scripts, pipe.load_lora_weights",
    "diffusers": "pipe.load_lora_weights(folder)",
    "comfyui": "ComfyUI models/loras, with LoraLoader",
    "a1111": "A1111 and Forge models/Lora; words are in the file, so the embedding files are not "
    "needed",
    "invokeai": "InvokeAI's model manager",
    "peft": "PeftModel.from_pretrained(pipe.unet, folder), the text encoder's likewise",
    "custom-diffusion": "pipe.unet.load_attn_procs(folder, weight_name=..., _pipeline=pipe); "
    "diffusers 0.42 sets nothing without _pipeline",
    "full-model": "a whole model",
}
