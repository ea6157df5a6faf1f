"""Make an editing base of a text-to-image model, as InstructPix2Pix did (arXiv 2211.09800, 3.2).

The UNet's first convolution gets input channels for the source picture, beginning at zero: the
widened model predicts exactly what the plain one did, whatever the source, until it learns.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from customize.adapters.whole_denoiser import FIRST
from customize.families import pipeline_name
from customize.families.base import Base
from customize.families.loading.weight_files import component_files, room_for, written

_COPIED = ("vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_PARTS = ("unet", *_COPIED)


def widened(weights: Mapping[str, Tensor], extra: int) -> dict[str, Tensor]:
    """Return a UNet's weights with `extra` zero input channels after its own; all else is shared.

    The first convolution's bias stays: the plain model's answer depends on it.
    """
    first_NCkk = weights[FIRST]
    zeros = first_NCkk.new_zeros(first_NCkk.shape[0], extra, *first_NCkk.shape[2:])
    return {**weights, FIRST: torch.cat([first_NCkk, zeros], dim=1)}


def write_widened(plain: Base, folder: Path) -> None:
    """Write the text-to-image model `plain` as an editing base to `folder`, whole or not at all.

    All but the UNet is copied as it is. Raises BaseModelError when the disk is full.
    """
    owner = f"start {plain.name!r}"
    size = sum(p.stat().st_size for part in _PARTS for p in (plain.folder / part).glob("*"))
    room_for(size, folder.parent, owner)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".widening-"))
    try:
        with written(owner, folder.parent):
            _write(plain, temporary)
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(plain: Base, folder: Path) -> None:
    index = json.loads((plain.folder / "model_index.json").read_text("utf-8"))
    # What is no part of an editing pipeline, such as a safety checker, is left out.
    kept = {key: value for key, value in index.items() if key in _PARTS or not _is_part(value)}
    missing = {"safety_checker": [None, None], "feature_extractor": [None, None]}
    extra = missing if "text_encoder_2" not in index else {}
    flags = {"requires_safety_checker": False} if extra else {}
    kind = {"_class_name": pipeline_name(plain.family)}
    _put(folder / "model_index.json", {**kept, **kind, **extra, **flags})
    for part in _COPIED:
        if (plain.folder / part).is_dir():
            shutil.copytree(plain.folder / part, folder / part)
    config = json.loads((plain.folder / "unet" / "config.json").read_text("utf-8"))
    channels = config["in_channels"]
    (folder / "unet").mkdir()
    _put(folder / "unet" / "config.json", {**config, "in_channels": 2 * channels})
    files, _ = component_files(plain.folder / "unet", f"start {plain.name!r}")
    weights: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    target = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(widened(weights, channels), target, metadata={"format": "pt"})


def _is_part(value: Any) -> bool:
    return isinstance(value, list)


def _put(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), "utf-8")
