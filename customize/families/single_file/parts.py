"""One component out of a single-file checkpoint into its folder, by diffusers' own converters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from customize.errors import BaseModelError
from customize.families.loading.quiet import hush
from customize.families.single_file.configs import SECOND_TEXT, UNET, VAE, Config
from customize.files.tensors import write_safetensors

_FIRST_TEXTS = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
_EMA = "model_ema."


def write_component(
    path: Path, part: str, config: Config, folder: Path, owner: str
) -> dict[str, int]:
    """Write config and weights of `part` to `folder`; return a text encoder's rows and positions.

    Raises BaseModelError in the name of `owner` where the tensors are not those of the config.
    """
    hush()
    module, converted = _module(part, config), _convert(path, part, config)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    # transformers had a level more before version 5, and CLIPTextModelWithProjection still has it.
    named = {n if n in expected else n.removeprefix("text_model."): t for n, t in converted.items()}
    found = {name: tuple(tensor.shape) for name, tensor in named.items()}
    if odd := sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n)):
        raise BaseModelError(
            f"{owner}: its {part} does not fit the shapes read from it at {len(odd)} tensors, "
            f"first {odd[0]} ({found.get(odd[0], 'missing')}, expected "
            f"{expected.get(odd[0], 'none')}); expected a whole Stable Diffusion 1 or SDXL "
            "checkpoint",
            f"put its {part}/config.json in {path.with_suffix('')}, or download it again",
        )
    folder.mkdir()
    if part.startswith("text_encoder"):
        module.config.save_pretrained(folder)
        weights = folder / "model.safetensors"
    else:
        module.save_config(folder)
        weights = folder / "diffusion_pytorch_model.safetensors"
    write_safetensors(weights, {n: named[n] for n in expected}, {"format": "pt"})
    sizes = ("vocab_size", "max_position_embeddings")
    rows, positions = (getattr(module.config, size, 0) for size in sizes)
    return {"rows": rows, "positions": positions}


def _module(part: str, config: Config) -> Any:
    """Build the component without memory for its weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kinds: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    with torch.device("meta"):
        module: nn.Module = (
            kinds[part](CLIPTextConfig(**config))
            if part.startswith("text_encoder")
            else kinds[part].from_config(config)
        )
    return module


def _convert(path: Path, part: str, config: Config) -> Mapping[str, Tensor]:
    from diffusers.loaders import single_file_utils as diffusers

    convert_open_clip: Any = diffusers.convert_open_clip_checkpoint
    match part:
        case "unet":
            return diffusers.convert_ldm_unet_checkpoint(_read_unet(path), config)
        case "vae":
            return diffusers.convert_ldm_vae_checkpoint(_read(path, (VAE,)), config)
        case "text_encoder":
            found = diffusers.convert_ldm_clip_checkpoint(_read(path, _FIRST_TEXTS))
            return {n: t for n, t in found.items() if not n.endswith("position_ids")}
        case _:
            return convert_open_clip(None, _read(path, (SECOND_TEXT,)), prefix=SECOND_TEXT)


def _read(path: Path, starts: tuple[str, ...]) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(starts)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def _read_unet(path: Path) -> dict[str, Tensor]:
    """Read the averaged weights (EMA) where the file has both: the paper samples with them."""
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        plain = [name for name in names if name.startswith(UNET)]
        averaged = {n: _EMA + "".join(n.removeprefix("model.").split(".")) for n in plain}
        if not names.issuperset(averaged.values()):
            averaged = {name: name for name in plain}
        return {name: file.get_tensor(averaged[name]) for name in plain}
