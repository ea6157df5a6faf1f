"""Lay out the files of one target: which tensors, under which names, with which metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

import torch
from torch import Tensor

from customize.adapters.header_facts import shareable
from customize.errors import ExportError
from customize.exporting.changes import Changes, LowRankChange
from customize.exporting.fit_to_target import Fitted, fit
from customize.exporting.formats.embeddings import file_name
from customize.exporting.targets import ExportOptions, Target, holds_of
from customize.families import profile_of

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base
    from customize.families.loading.layer_weights import BaseWeights
    from customize.families.profile import Profile


@dataclass(frozen=True)
class Content:
    """A safetensors file to be."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


# What goes where in the target's folder: tensors, or a small file's text or bytes.
FilePlan = dict[str, Content | str | bytes]


def plan_weights(
    adapter: AdapterFile,
    base: Base,
    target: Target,
    changes: Changes,
    weights: BaseWeights,
    options: ExportOptions,
) -> tuple[Fitted, FilePlan]:
    """Fit the changes to the target and lay its weights' files out."""
    if target == "custom-diffusion":
        return Fitted(changes, {}), _plan_custom_diffusion(changes, weights, options)
    if target == "invokeai":
        _refuse_mixed_names(changes)
    name, profile = options.name, profile_of(base.family)
    assert name is not None
    holds = holds_of(target, profile.front_ends)
    fitted = fit(changes, holds, weights, options, _progress(target))
    if (telling := profile.front_ends.telling) is not None:
        fitted = replace(fitted, changes=_with_layer(fitted.changes, telling, weights))
    match target:
        case "kohya" | "comfyui" | "invokeai" if profile.front_ends.makers_names:
            tensors = _in_makers_names(fitted.changes, target, profile)
            place, facts = f"{name}.safetensors", {}
        case "kohya" | "comfyui" | "invokeai" | "a1111":
            from customize.exporting.formats.embeddings import to_bundle
            from customize.exporting.formats.kohya import at_one_rank, to_kohya

            if holds.one_rank:
                fitted = replace(fitted, changes=at_one_rank(fitted.changes))
            tensors = to_kohya(fitted.changes, profile.front_ends.kohya_prefixes)
            # Only A1111 registers bundled words; diffusers refuses a file that has them.
            if target == "a1111":
                tensors |= to_bundle(changes.words)
            place, facts = f"{name}.safetensors", {}
        case "diffusers":
            from customize.exporting.formats.diffusers_lora import FILE, lora_metadata, to_diffusers

            tensors = to_diffusers(fitted.changes, profile.models)
            place, facts = FILE, lora_metadata(fitted.changes, profile.models)
        case "peft":
            return fitted, _plan_peft(fitted.changes, base)
        case "full-model":
            raise AssertionError("a full model is written by its own module")
        case _:
            assert_never(target)
    from customize.exporting.formats.metadata import describe_adapter, hashes

    facts = describe_adapter(adapter.header, fitted.changes, base, name) | facts
    return fitted, {place: Content(tensors, facts | hashes(tensors, facts))}


def _with_layer(changes: Changes, layer: str, weights: BaseWeights) -> Changes:
    """Add a change of zeros where a layer by which programs tell the family has none."""
    if layer in changes.layers:
        return changes
    height, width = weights.shape(layer)
    like = next((c for c in changes.layers.values() if isinstance(c, LowRankChange)), None)
    kind = torch.float32 if like is None else like.down.dtype
    zeros = LowRankChange(torch.zeros(1, width, dtype=kind), torch.zeros(height, 1, dtype=kind))
    return replace(changes, layers={**changes.layers, layer: zeros})


def _in_makers_names(changes: Changes, target: Target, profile: Profile) -> dict[str, Tensor]:
    """Name layers as each program does that knows the makers' names; InvokeAI knows diffusers'."""
    from customize.exporting.formats import comfyui, kohya, makers_names
    from customize.exporting.formats.diffusers_lora import to_diffusers

    match target:
        case "kohya":
            return kohya.to_kohya(makers_names.fused(changes), profile.front_ends.kohya_prefixes)
        case "comfyui":
            return comfyui.to_comfyui(makers_names.fused(changes))
        case _:
            return to_diffusers(changes, profile.models)


def _refuse_mixed_names(changes: Changes) -> None:
    """Refuse what InvokeAI does: SDXL's `add_embedding` has another kind of name than the rest."""
    odd = [layer for layer in changes.layers if layer.startswith("denoiser.add_embedding.")]
    if odd and len(odd) < len(changes.layers):
        raise ExportError(
            f"invokeai: the adapter changes {odd[0]} beside other layers; expected no such layer: "
            "InvokeAI refuses a file whose names are of two kinds (docs/frontends.md); export it "
            "to another target"
        )


def _plan_peft(changes: Changes, base: Base) -> FilePlan:
    """Lay out a folder for each model that the adapter changes."""
    from customize.exporting.formats.peft_folder import CONFIG, WEIGHTS, to_peft

    plan: FilePlan = {}
    for model, place in profile_of(base.family).models.items():
        if not any(layer.startswith(f"{model}.") for layer in changes.layers):
            continue
        tensors, config = to_peft(changes, model)
        config |= {"base_model_name_or_path": shareable(base.name)}
        plan[f"{place}/{WEIGHTS}"] = Content(tensors, {"format": "pt"})
        plan[f"{place}/{CONFIG}"] = json.dumps(config, indent=2) + "\n"
    return plan


def _plan_custom_diffusion(
    changes: Changes, weights: BaseWeights, options: ExportOptions
) -> FilePlan:
    from customize.exporting.formats.custom_diffusion import FILE, to_custom_diffusion

    if (options.rank, options.energy, options.error, options.size_mb) != (None,) * 4:
        raise ExportError(
            "custom-diffusion: it holds whole weights; expected no limit of rank or size; "
            "leave --rank, --energy, --error and --size-mb out, or export to diffusers"
        )
    tensors = to_custom_diffusion(changes, weights.layers(), weights)
    return {FILE: Content(tensors, {"format": "pt"})}


def plan_words(changes: Changes, base: Base) -> FilePlan:
    """Plan an embedding file for each word, in a folder beside the weights."""
    from customize.exporting.formats.embeddings import to_embedding

    plan: FilePlan = {}
    needed = profile_of(base.family).text_encoders
    for word, rows in changes.words.items():
        if missing := [encoder for encoder in needed if encoder not in rows]:
            raise ExportError(
                f"the word {word} has no rows for {missing[0]}; expected rows for "
                f"{' and '.join(needed)}; teach the word again on this base"
            )
        place = f"embeddings/{file_name(word)}.safetensors"
        if place in plan:
            raise ExportError(
                f"the word {word} would share the file {place} with another word; expected words "
                "that differ in letters and digits; teach one again under another name"
            )
        needed_rows = {encoder: rows[encoder] for encoder in needed}
        plan[place] = Content(to_embedding(needed_rows), {"format": "pt"})
    return plan


def _progress(target: Target) -> Callable[[Iterable[str]], Iterator[str]]:
    def bar(layers: Iterable[str]) -> Iterator[str]:
        from tqdm import tqdm

        return iter(tqdm(list(layers), desc=target, unit="layer", disable=None, leave=False))

    return bar
