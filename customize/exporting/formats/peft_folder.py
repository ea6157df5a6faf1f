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
    parse_config,
    read_scaled,
)
from customize.exporting.formats.kohya import denoiser_layer
from customize.exporting.formats.module_paths import (
    ROOT,
    split_layer,
    with_text_model,
    without_root,
    without_text_model,
)
from customize.exporting.formats.peft_config import PeftConfig, read_config
from customize.exporting.formats.tensor_roles import split_key

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODEL = "customize_model"
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
            tensors |= {f"{ROOT}{spelled}.{name}": t for name, t in factors(layer, change)}
    return tensors, lora_config(changes, model)


def from_peft(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Changes:
    """Read one model's layers.

    `metadata[CONFIG]` is the text of the config beside the file and `metadata[MODEL]` the model it
    is for, where it is known; else text encoders are told by their layers' names. Raises
    AdapterFileError without a config, unless every layer has its alpha.
    """
    metadata = metadata or {}
    if (text := metadata.get(CONFIG)) is None:
        _refuse_without_alpha(tensors)
        config = PeftConfig()
    else:
        config = config_of(text)

    def named(name: str) -> str | None:
        return layer_of(name, metadata.get(MODEL))

    return read_scaled(tensors, named, dict.fromkeys(PREFIXES, config))


def config_of(text: str) -> PeftConfig:
    """Read the config's text; raises AdapterFileError for what cannot be read exactly."""
    return read_config(parse_config(text, CONFIG), CONFIG)


def layer_of(name: str, model: str | None = None) -> str | None:
    """Read a module's name back, None for one of another network.

    Peft's root may stand before or after the model's own name, where a whole pipeline was saved.

    >>> layer_of("base_model.model.encoder.layers.0.mlp.fc1")
    'text_encoder.encoder.layers.0.mlp.fc1'
    >>> layer_of("text_encoder_2.base_model.model.text_model.encoder.layers.0.mlp.fc1")
    'text_encoder_2.encoder.layers.0.mlp.fc1'
    """
    path = without_root(name)
    for own, prefix in PREFIXES.items():
        if path.startswith(prefix) and "." in path.removeprefix(prefix):
            model, path = own, without_root(path.removeprefix(prefix))
    path = without_text_model(path)
    if path.startswith(("encoder.layers.", "embeddings.", "final_layer_norm", "text_projection")):
        return f"{model or 'text_encoder'}.{path}"
    return denoiser_layer(path)


def _refuse_without_alpha(tensors: Mapping[str, Tensor]) -> None:
    split = [found for found in map(split_key, tensors) if found]
    scaled = {module for module, role in split if role == "alpha"}
    without = [module for module, role in split if role == "down" and module not in scaled]
    if without or not scaled:
        raise AdapterFileError(
            f"it is peft's, without {CONFIG} beside it and without an alpha in it, so that the "
            f"scale of {(without or ['its layers'])[0]} is not known; expected {CONFIG} beside it; "
            "fetch that as well"
        )
