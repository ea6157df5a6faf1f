"""diffusers' layout, `unet.<path>.lora_A.weight`, for `pipe.load_lora_weights`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import Changes, Decomposed, LowRankChange, Start, WeightChange
from customize.exporting.formats import makers_names
from customize.exporting.formats.kohya import denoiser_layer
from customize.exporting.formats.module_paths import (
    ROOT,
    is_encoder,
    split_layer,
    with_text_model,
    without_text_model,
)
from customize.exporting.formats.peft_config import PeftConfig, read_config
from customize.exporting.formats.tensor_roles import gather, unreadable
from customize.files.parse import MOST_CONFIG_BYTES, parse_json
from customize.files.text import finding

FILE, METADATA = "pytorch_lora_weights.safetensors", "lora_adapter_metadata"
MAGNITUDE = "lora_magnitude_vector"
# How names begin in files that are read.
PREFIXES: Mapping[str, str] = {
    "denoiser": "unet.",
    "text_encoder": "text_encoder.",
    "text_encoder_2": "text_encoder_2.",
}
# How diffusers spelled modules before it used peft.
_TEXT_BEFORE = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def to_diffusers(changes: Changes, parts: Mapping[str, str]) -> dict[str, Tensor]:
    """Write low-rank changes and peft's DoRA; scales are baked in, so alpha is the rank.

    `parts` are what a pipeline calls the models that adapters change (`Profile.models`).
    """
    tensors = {}
    for layer, change in changes.layers.items():
        model, path = split_layer(layer)
        # Other programs, and diffusers' own reader of a second encoder, want `text_model.`.
        spelled = with_text_model(path) if is_encoder(model) else path
        for name, tensor in factors(layer, change):
            # transformers 5 leaves a text encoder's magnitudes out without `.weight`.
            end = ".weight" * (is_encoder(model) and name == MAGNITUDE)
            tensors[f"{parts[model]}.{spelled}.{name}{end}"] = tensor
    return tensors


def lora_metadata(changes: Changes, parts: Mapping[str, str]) -> dict[str, str]:
    """Describe every model's layers as diffusers' own saving does: it wants all or none."""
    config = {
        f"{part}.{key}": value
        for model, part in parts.items()
        if any(layer.startswith(f"{model}.") for layer in changes.layers)
        for key, value in lora_config(changes, model).items()
    }
    return {"format": "pt", METADATA: json.dumps(config)}


def lora_config(changes: Changes, model: str) -> dict[str, Any]:
    """Configure peft for the layers of one model, each at scale 1.

    Paths stand without `text_model.`: peft matches the end of a module's name, so that they fit
    text encoders with that level and without.
    """
    ranks, decomposes = {}, False
    for layer, change in changes.layers.items():
        owner, path = split_layer(layer)
        if owner == model:
            decomposes |= isinstance(change, Decomposed)
            pair = change.change if isinstance(change, Decomposed) else change
            assert isinstance(pair, LowRankChange), layer
            ranks[path] = len(pair.down)
    (common, _), *_ = Counter(ranks.values()).most_common(1)
    others = {re.escape(path): rank for path, rank in ranks.items() if rank != common}
    return {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
        "target_modules": sorted(ranks),
        "use_dora": decomposes,
        "lora_bias": False,
        "bias": "none",
        "peft_type": "LORA",
    }


def from_diffusers(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Changes:
    """Read every spelling that diffusers has had; alpha is in the metadata, where it is at all.

    Raises AdapterFileError for other tensors, and for metadata that mean something that cannot be
    read exactly.
    """
    return read_scaled(tensors, layer_of, _configs((metadata or {}).get(METADATA)))


def _configs(text: str | None) -> dict[str, PeftConfig]:
    """Read the configuration of each model; its fields stand under the model's prefix."""
    fields = {} if text is None else parse_config(text, METADATA)
    of_model: dict[str, dict[str, Any]] = {}
    for key, value in fields.items():
        key = _as_unet(key)
        model = next((m for m, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        if model is None:
            raise AdapterFileError(
                f"its {METADATA} says {key[:80]!r}, of no model that is known; expected fields of "
                f"{', '.join(PREFIXES.values())}; take a file for Stable Diffusion 1 or XL"
            )
        of_model.setdefault(model, {})[key.removeprefix(PREFIXES[model])] = value
    return {model: read_config(own, METADATA) for model, own in of_model.items()}


def parse_config(text: str | bytes, name: str) -> dict[str, Any]:
    """Parse peft's configuration, in a file of `name`; raises AdapterFileError for what is none."""
    try:
        config = parse_json(text, MOST_CONFIG_BYTES)
        if not isinstance(config, dict):
            raise ValueError("it is no table of fields")
    except ValueError as error:
        raise AdapterFileError(
            f"its {name} is damaged ({finding(error)}); expected the configuration that peft "
            "writes; download or copy it again"
        ) from None
    return config


def read_scaled(
    tensors: Mapping[str, Tensor],
    layer_of: Callable[[str], str | None],
    configs: Mapping[str, PeftConfig],
) -> Changes:
    """Gather layers whose scales, and how they started, stand in a configuration for each model."""
    if any(name.endswith(".alpha") for name in tensors):  # which then count where it says none
        configs = {model: replace(config, usual_alpha=None) for model, config in configs.items()}

    def config_of(layer: str) -> PeftConfig:
        return configs.get(split_layer(layer)[0], PeftConfig())

    def scale_of(layer: str, rank: int | None) -> float | None:
        return config_of(layer).scale(split_layer(layer)[1], rank)

    changes = gather(tensors, layer_of, scale_of)
    starts: dict[str, Start] = {}
    for layer, change in changes.layers.items():
        config = config_of(layer)
        if config.start is not None:
            rank = len(change.down) if isinstance(change, LowRankChange) else None
            starts[layer] = Start(config.start, scale_of(layer, rank) or 1.0)
        if config.dora is not None and config.dora != isinstance(change, Decomposed):
            raise unreadable(
                f"its layer {layer} has {'no ' * config.dora}magnitudes, and its configuration "
                f"says use_dora: {str(config.dora).lower()}"
            )
    return replace(changes, starts=starts)


def _as_unet(name: str) -> str:
    """Call a pipeline's denoiser one name, whichever of two it has there."""
    if name.startswith("transformer."):
        return f"unet.{name.removeprefix('transformer.')}"
    return name


def layer_of(name: str) -> str | None:
    """Read a module's name back, None for one of another layout or model.

    >>> layer_of("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out")
    'denoiser.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0'
    """
    if ROOT in name:  # peft's, whose alpha is elsewhere
        return None
    for model, prefix in PREFIXES.items():
        if model != "denoiser" and name.startswith(prefix):
            path = without_text_model(name.removeprefix(prefix))
            head, _, last = path.rpartition(".")
            return f"{model}.{head}.{_TEXT_BEFORE.get(last, last)}"
    path = _as_unet(name).removeprefix("unet.").replace(".processor", "")
    short = path.endswith(".to_out") and not makers_names.is_known(path)
    return denoiser_layer(f"{path}.0" if short else path)


def factors(layer: str, change: WeightChange) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a low-rank or DoRA change under peft's names."""
    match change:
        case LowRankChange(down, up):
            yield "lora_A.weight", down
            yield "lora_B.weight", up
        case Decomposed(LowRankChange(down, up), magnitude, 0):
            yield "lora_A.weight", down
            yield "lora_B.weight", up
            yield (
                MAGNITUDE,
                magnitude.view(1, -1, 1, 1) if down.ndim == 4 else magnitude,
            )
        case _:
            raise AssertionError(f"{layer}: this layout holds no {change}")
