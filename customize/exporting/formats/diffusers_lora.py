"""diffusers' layout, `unet.<path>.lora_A.weight`, for `pipe.load_lora_weights`."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import Change, Changes, Decomposed, LowRank
from customize.exporting.formats.kohya import denoiser_layer
from customize.exporting.formats.module_paths import (
    is_encoder,
    split_layer,
    with_text_model,
    without_text_model,
)
from customize.exporting.formats.tensor_roles import gather

FILE, METADATA = "pytorch_lora_weights.safetensors", "lora_adapter_metadata"
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
            tensors[f"{parts[model]}.{spelled}.{name}"] = tensor
    return tensors


def metadata_of(changes: Changes, parts: Mapping[str, str]) -> dict[str, str]:
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
            assert isinstance(pair, LowRank), layer
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

    Raises AdapterFileError for other tensors.
    """
    config = read_config((metadata or {}).get(METADATA, "{}"), METADATA)
    return gather(tensors, layer_of, scales(config))


def read_config(text: str, name: str) -> dict[str, Any]:
    """Read peft's configuration, in a file of `name`; raises AdapterFileError for what is none."""
    try:
        config = json.loads(text)
        for key, value in config.items():
            numbers = [value] if key.endswith("lora_alpha") else []
            if key.endswith("alpha_pattern"):
                numbers = [re.compile(pattern) and own for pattern, own in (value or {}).items()]
            if not all(number is None or math.isfinite(number) for number in numbers):
                raise ValueError(f"{key} is not finite")
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise AdapterFileError(
            f"its {name} is damaged ({error}); expected the configuration that peft writes; "
            "download or copy it again"
        ) from None
    return config


def layer_of(name: str) -> str | None:
    """Read a module's name back, None for one of another layout or model.

    >>> layer_of("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out")
    'denoiser.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0'
    """
    for model, prefix in PREFIXES.items():
        if model != "denoiser" and name.startswith(prefix):
            path = without_text_model(name.removeprefix(prefix))
            head, _, last = path.rpartition(".")
            return f"{model}.{head}.{_TEXT_BEFORE.get(last, last)}"
    path = name.removeprefix("unet.").replace(".processor", "")
    return denoiser_layer(f"{path}.0" if path.endswith(".to_out") else path)


def factors(layer: str, change: Change) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a low-rank or DoRA change under peft's names."""
    match change:
        case LowRank(down, up):
            yield "lora_A.weight", down
            yield "lora_B.weight", up
        case Decomposed(LowRank(down, up), magnitude, 0):
            yield "lora_A.weight", down
            yield "lora_B.weight", up
            yield (
                "lora_magnitude_vector",
                magnitude.view(1, -1, 1, 1) if down.ndim == 4 else magnitude,
            )
        case _:
            raise AssertionError(f"{layer}: this layout holds no {change}")


def scales(config: Mapping[str, Any]) -> Callable[[str, int], float | None]:
    """Return a function of layer and rank that finds the scale in diffusers' metadata.

    Keys are peft's under the model's name, `unet.lora_alpha`; rsLoRA divides by the root of the
    rank (arXiv 2312.03732).
    """

    def scale(layer: str, rank: int) -> float | None:
        model, path = split_layer(layer)
        prefix = PREFIXES[model]
        alpha = config.get(f"{prefix}lora_alpha")
        for pattern, own in (config.get(f"{prefix}alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", path):
                alpha = own
                break
        if alpha is None:
            return None
        return alpha / (rank**0.5 if config.get(f"{prefix}use_rslora") else rank)

    return scale
