"""FLUX.2 klein's transformer as one file in its makers' names, with a folder for the rest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from customize.errors import BaseModelError
from customize.families.loading.quiet import hush

Shapes = Mapping[str, tuple[int, ...]]
_MARK, _PREFIX = "single_stream_modulation.lin.weight", "model.diffusion_model."
_REST = ("vae", "text_encoder", "tokenizer", "scheduler")


def is_transformer(shapes: Shapes) -> bool:
    """Tell a file with a transformer of FLUX.2 by a layer that no other has."""
    return _MARK in shapes or f"{_PREFIX}{_MARK}" in shapes


def write_folder(path: Path, shapes: Shapes, own: Path, folder: Path, owner: str) -> None:
    """Write a whole base to `folder`: the file's transformer, and links to the rest, from `own`.

    Raises BaseModelError, in the name of `owner`, for numbers of 8 bits, another FLUX.2, and a rest
    that is not there.
    """
    _check(path, shapes, own, owner)
    (folder / "transformer").mkdir()
    _write_transformer(path, _config(shapes, owner), folder / "transformer", owner)
    for part in _REST:
        (folder / part).symlink_to((own / part).resolve(), target_is_directory=True)
    shutil.copy(own / "model_index.json", folder / "model_index.json")
    if (own / "customize.json").is_file():
        shutil.copy(own / "customize.json", folder / "customize.json")


def _check(path: Path, shapes: Shapes, own: Path, owner: str) -> None:
    with safe_open(path, framework="numpy") as file:
        kinds = {file.get_slice(name).get_dtype() for name in shapes}
    if odd := sorted(kinds - {"F32", "F16", "BF16"}):
        raise BaseModelError(
            f"{owner}: its numbers are {' and '.join(odd)}, which cannot be trained on or added "
            "to; expected bfloat16, float16 or float32",
            "take the file of the same model in bfloat16; base.quantization saves memory as well",
        )
    missing = [part for part in ("model_index.json", *_REST) if not (own / part).exists()]
    if missing:
        raise BaseModelError(
            f"{owner}: it is the transformer of FLUX.2 klein alone, and {own} lacks "
            f"{', '.join(missing)}; expected the rest of the model there",
            "put those of 'black-forest-labs/FLUX.2-klein-base-4B' there, or name that as the base",
        )


def _config(shapes: Shapes, owner: str) -> dict[str, Any]:
    """Read the config out of the tensors' shapes."""
    named = {name.removeprefix(_PREFIX): shape for name, shape in shapes.items()}
    if "guidance_in.in_layer.weight" in named:
        raise BaseModelError(
            f"{owner}: this is FLUX.2 dev, which is not supported; expected FLUX.2 klein",
            "name 'black-forest-labs/FLUX.2-klein-base-4B'",
        )

    def blocks(kind: str) -> int:
        numbers = {int(n.split(".")[1]) for n in named if n.startswith(f"{kind}_blocks.")}
        return len(numbers)

    try:
        width, channels = named["img_in.weight"]
        head = named["double_blocks.0.img_attn.norm.query_norm.scale"][0]
        return {
            "in_channels": channels,
            "num_layers": blocks("double"),
            "num_single_layers": blocks("single"),
            "attention_head_dim": head,
            "num_attention_heads": width // head,
            "joint_attention_dim": named["txt_in.weight"][1],
            "mlp_ratio": named["double_blocks.0.img_mlp.2.weight"][1] / width,
            "axes_dims_rope": [head // 4] * 4,
            "guidance_embeds": False,
        }
    except (KeyError, IndexError, ValueError) as error:
        raise BaseModelError(
            f"{owner}: its transformer is incomplete ({error} is missing or odd); expected a whole "
            "file",
            "download it again",
        ) from None


def _write_transformer(path: Path, config: dict[str, Any], folder: Path, owner: str) -> None:
    """Convert names by diffusers' own converter, and check them against the model they are for."""
    hush()
    import torch
    from diffusers import Flux2Transformer2DModel
    from diffusers.loaders.single_file_utils import (
        convert_flux2_transformer_checkpoint_to_diffusers,
    )
    from safetensors.torch import load_file, save_file

    kind: Any = Flux2Transformer2DModel
    with torch.device("meta"):
        module = kind(**config)
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(path).items()}
    converted = convert_flux2_transformer_checkpoint_to_diffusers(tensors)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in converted.items()}
    if odd := sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n)):
        raise BaseModelError(
            f"{owner}: its transformer does not fit at {len(odd)} tensors, first {odd[0]} "
            f"({found.get(odd[0], 'missing')}, expected {expected.get(odd[0], 'none')}); expected "
            "FLUX.2 klein",
            "download it again",
        )
    module.save_config(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: converted[name].contiguous() for name in expected}, weights, {"format": "pt"})
