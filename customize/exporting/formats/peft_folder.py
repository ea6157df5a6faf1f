"""peft's folders, `adapter_config.json` beside `adapter_model.safetensors`, one for each model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import Changes
from customize.exporting.formats.diffusers_lora import (
    PREFIXES,
    factors,
    lora_config,
    read_config,
    scales,
)
from customize.exporting.formats.kohya import denoiser_layer
from customize.exporting.formats.module_paths import (
    split_layer,
    with_text_model,
    without_text_model,
)
from customize.exporting.formats.tensor_roles import gather

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODEL = "customize_model"
_ROOT = "base_model.model."
# transformers 5 took the level `text_model` out of CLIPTextModel and left it in the other class.
_SPELLED: Mapping[str, Callable[[str], str]] = {
    "denoiser": str,
    "text_encoder": str,
    "text_encoder_2": with_text_model,
}


def to_peft(changes: Changes, model: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Write the layers of one model, `denoiser` or a text encoder, and peft's config for them."""
    tensors = {}
    for layer, change in changes.layers.items():
        owner, path = split_layer(layer)
        if owner == model:
            spelled = _SPELLED[model](path)
            tensors |= {f"{_ROOT}{spelled}.{name}": t for name, t in factors(layer, change)}
    return tensors, lora_config(changes, model)


def from_peft(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Changes:
    """Read one model's layers.

    `metadata[CONFIG]` is the text of the config beside the file and `metadata[MODEL]` the model it
    is for, where it is known; else text encoders are told by their layers' names.
    """
    metadata = metadata or {}
    config = read_config(metadata.get(CONFIG, "{}"), CONFIG)
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise AdapterFileError(
            f"its {CONFIG} says {kind}; expected LORA (or DoRA); take a file of that kind"
        )

    def named(name: str) -> str | None:
        return layer_of(name, metadata.get(MODEL))

    prefixed = {
        f"{prefix}{key}": value for prefix in PREFIXES.values() for key, value in config.items()
    }
    return gather(tensors, named, scales(prefixed))


def layer_of(name: str, model: str | None = None) -> str | None:
    """Read a module's name back, None for one of another network.

    >>> layer_of("base_model.model.encoder.layers.0.mlp.fc1")
    'text_encoder.encoder.layers.0.mlp.fc1'
    """
    path = without_text_model(name.removeprefix(_ROOT))
    if path.startswith(("encoder.layers.", "embeddings.", "final_layer_norm", "text_projection")):
        return f"{model or 'text_encoder'}.{path}"
    return denoiser_layer(path)
