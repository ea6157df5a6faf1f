"""Make an editing base of a text-to-image model, as InstructPix2Pix did (arXiv 2211.09800, 3.2).

The UNet's first convolution gets input channels for the source picture, beginning at zero: the
widened model predicts exactly what the plain one did, whatever the source, until it learns. Of an
editing base that is a text-to-image model as well, its twin is the plain one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from customize.families import profile_of
from customize.families.base import Base
from customize.families.loading.weight_files import component_files
from customize.families.profile import Profile
from customize.files import check_room, replacing_folder
from customize.files.tensors import write_safetensors


def widened(weights: Mapping[str, Tensor], first: str, extra: int) -> dict[str, Tensor]:
    """Return a UNet's weights with `extra` zero input channels in `first`; all else is shared.

    The first convolution's bias stays: the plain model's answer depends on it.
    """
    first_NCkk = weights[first]
    zeros = first_NCkk.new_zeros(first_NCkk.shape[0], extra, *first_NCkk.shape[2:])
    return {**weights, first: torch.cat([first_NCkk, zeros], dim=1)}


def write_widened(plain: Base, folder: Path) -> None:
    """Write the text-to-image model `plain` as an editing base to `folder`, whole or not at all.

    All but the UNet is copied as it is. Raises BaseModelError, and OutputError for a full disk.
    """
    parts = _parts(profile_of(plain.family))
    size = sum(p.stat().st_size for part in parts for p in (plain.folder / part).glob("*"))
    check_room(folder, size)
    with replacing_folder(folder) as temporary:
        _write(plain, temporary)


def _write(plain: Base, folder: Path) -> None:
    profile = profile_of(plain.family)
    parts, denoiser = _parts(profile), profile.denoiser
    index = json.loads((plain.folder / "model_index.json").read_text("utf-8"))
    # What is no part of an editing pipeline, such as a safety checker, is left out.
    kept = {k: v for k, v in index.items() if k in parts or not isinstance(v, list)}
    own = {"_class_name": profile.pipeline, **profile.index}
    _put(folder / "model_index.json", {**kept, **own})
    for part in parts:
        if part != denoiser and (plain.folder / part).is_dir():
            shutil.copytree(plain.folder / part, folder / part)
    config = json.loads((plain.folder / denoiser / "config.json").read_text("utf-8"))
    channels = config["out_channels"]  # a twin's base has its own channels for a source: dropped
    (folder / denoiser).mkdir()
    _put(folder / denoiser / "config.json", {**config, "in_channels": 2 * channels})
    files, _ = component_files(plain.folder / denoiser, f"start {plain.name!r}")
    weights: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    target, first = folder / denoiser / "diffusion_pytorch_model.safetensors", profile.layers.source
    assert first is not None, "a family without a weight to widen"
    weights[first] = weights[first][:, :channels]
    write_safetensors(target, widened(weights, first, channels), {"format": "pt"})


def _parts(profile: Profile) -> tuple[str, ...]:
    return *profile.components, *profile.tokenizers, "scheduler"


def _put(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), "utf-8")
