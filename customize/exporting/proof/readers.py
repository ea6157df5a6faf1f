"""Read written files back, by our own readers and by the libraries they are for.

Each reader puts the files on a fresh float32 pipeline of the base, so that weights and pixels can
be compared with the adapter they came from, whatever the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from customize.exporting.formats.module_paths import is_encoder, with_text_model, without_text_model
from customize.exporting.proof.written_files import load_words, read_changes, weights_files
from customize.exporting.targets import Written
from customize.families import denoiser_of, profile_of

if TYPE_CHECKING:
    from torch import Tensor

    from customize.adapters.file import AdapterFile
    from customize.families.base import Base


@dataclass(frozen=True)
class ReadBack:
    """A pipeline that `reader` put the files on; `weight_of` finds a layer's weight in it."""

    reader: str
    pipeline: Any
    weight_of: Callable[[str], Tensor]


def read_back(written: Written, adapter: AdapterFile, base: Base) -> Iterator[ReadBack]:
    """Read a target's files by every reader there is for it, one pipeline at a time.

    `adapter` is where they came from: it names the words whose embedding files are loaded.
    """
    match written.target:
        case "kohya" | "diffusers":
            yield by_customize(written, adapter, base)
            yield by_diffusers(written, adapter, base)
        case "comfyui" | "a1111" | "invokeai":
            yield by_customize(written, adapter, base)
            if profile_of(base.family).front_ends.makers_names:
                yield by_diffusers(written, adapter, base)
        case "peft":
            yield by_customize(written, adapter, base)
            yield by_peft(written, adapter, base)
        case "custom-diffusion":
            yield by_customize(written, adapter, base)
            yield by_attention_processors(written, adapter, base)
        case "full-model":
            yield by_single_file(written, adapter, base)
            yield by_converters(written, adapter, base)
            yield by_folder(written, base)
        case _:
            assert_never(written.target)


def by_customize(written: Written, adapter: AdapterFile, base: Base) -> ReadBack:
    """Import the files as `customize import` does."""
    from customize.adapters.apply import apply_adapters
    from customize.adapters.file import AdapterFile
    from customize.exporting.formats.native import to_native
    from customize.families.loading.layer_weights import BaseWeights

    tensors = to_native(read_changes(written, adapter), BaseWeights(base))
    header = replace(adapter.header, alpha=None)  # files carry their scale in the factors
    pipeline = open_plain(base)
    apply_adapters(pipeline, [(AdapterFile(header, tensors), 1.0)])
    return _plain("customize", pipeline)


def by_diffusers(written: Written, adapter: AdapterFile, base: Base) -> ReadBack:
    """Load weights with `load_lora_weights`, words with `load_textual_inversion`."""
    pipeline = open_plain(base)
    load_words(pipeline, written, adapter)
    for path in weights_files(written):  # none where the adapter is words alone
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    return _plain("diffusers", pipeline)


def by_peft(written: Written, adapter: AdapterFile, base: Base) -> ReadBack:
    """Load each model's folder with `PeftModel.from_pretrained`, and merge it."""
    from peft import PeftModel

    pipeline = open_plain(base)
    load_words(pipeline, written, adapter)
    for path in weights_files(written):
        model = getattr(pipeline, path.parent.name)
        merged = PeftModel.from_pretrained(model, path.parent).merge_and_unload()  # type: ignore[operator]
        setattr(pipeline, path.parent.name, merged)
    return _plain("peft", pipeline)


def by_attention_processors(written: Written, adapter: AdapterFile, base: Base) -> ReadBack:
    """Load with `load_attn_procs`, which keeps the weights in processors."""
    from customize.adapters.apply import module_of

    pipeline = open_plain(base)
    denoiser = denoiser_of(pipeline)
    (path,) = weights_files(written)
    load_words(pipeline, written, adapter)
    denoiser.load_attn_procs(path.parent, weight_name=path.name, _pipeline=pipeline)

    def weight_of(layer: str) -> Tensor:
        module, _, name = layer.removeprefix("denoiser.").rpartition(".")
        processor = denoiser.attn_processors.get(f"{module}.processor")
        replaced = getattr(processor, f"{name}_custom_diffusion", None)
        return (replaced or module_of(pipeline, layer)).weight.detach()

    return ReadBack("diffusers", pipeline, weight_of)


def by_converters(written: Written, adapter: AdapterFile, base: Base) -> ReadBack:
    """Read the single file with diffusers' own converters of such checkpoints."""
    from safetensors.torch import load_file

    from customize.exporting.whole_model.diffusers_converters import convert

    pipeline = open_plain(base)
    _load_components(pipeline, convert(load_file(written.files[0]), pipeline))
    load_words(pipeline, written, adapter)
    return _plain("diffusers, single file", pipeline)


def by_single_file(written: Written, adapter: AdapterFile, base: Base) -> ReadBack:
    """Read the single file by our own table of its names."""
    from safetensors.torch import load_file

    from customize.exporting.whole_model.full_model import pipeline_weights
    from customize.exporting.whole_model.single_file_keys import from_single_file

    pipeline = open_plain(base)
    models: dict[str, Any] = {name: getattr(pipeline, name) for name in pipeline_weights(pipeline)}
    configs = {n: {} if is_encoder(n) else model.config for n, model in models.items()}
    _load_components(pipeline, from_single_file(load_file(written.files[0]), configs))
    load_words(pipeline, written, adapter)
    return _plain("customize", pipeline)


def by_folder(written: Written, base: Base) -> ReadBack:
    """Open the written folder, words and all, by the one call that guides name."""
    import diffusers

    kind = getattr(diffusers, profile_of(base.family).pipeline)
    pipeline = kind.from_pretrained(written.files[0].with_suffix(""))
    pipeline.set_progress_bar_config(disable=True)
    return _plain("diffusers, folder", pipeline)


def open_plain(base: Base) -> Any:
    """Open diffusers' pipeline of a base in float32, without its progress bar."""
    import torch

    from customize.families import open_pipeline

    pipeline = open_pipeline(base, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _plain(reader: str, pipeline: Any) -> ReadBack:
    from customize.adapters.apply import module_of

    return ReadBack(reader, pipeline, lambda layer: module_of(pipeline, layer).weight.detach())


def _load_components(pipeline: Any, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    for name, tensors in weights.items():
        if is_encoder(name):
            _load_text(getattr(pipeline, name), tensors)
        else:
            getattr(pipeline, name).load_state_dict(tensors)


def _load_text(text_encoder: Any, tensors: Mapping[str, Tensor]) -> None:
    """Load a converted text encoder, which in transformers 5 has no level `text_model`."""
    tensors = {without_text_model(name): tensor for name, tensor in tensors.items()}
    if hasattr(text_encoder, "text_model"):
        tensors = {with_text_model(name): tensor for name, tensor in tensors.items()}
    text_encoder.load_state_dict(tensors)
