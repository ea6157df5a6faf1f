"""Turn a single-file checkpoint (original Stable Diffusion names) into a diffusers folder, once.

Works offline: configs come from the tensors' shapes, names from diffusers' own converters, weights
keep their precision bit for bit. A folder beside the file, named like it without its suffix, may
hold any part of a diffusers folder (configs, tokenizer), which then counts instead; a transformer
alone needs one with all the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from customize.errors import BaseModelError, OutputError
from customize.families.flux2 import single_file as transformer
from customize.families.identify import BaseKind
from customize.families.loading.weight_files import (
    check_safetensors,
    fingerprint,
    metadata_of,
    room_for,
    written,
)
from customize.families.single_file import configs as configs
from customize.families.single_file.kinds import check_kind
from customize.files import replacing_folder
from customize.files.parse import load_json
from customize.files.text import finding
from customize.files.write import remove

_WRITTEN = 1
"""Raise it when converting writes something else: old conversions are then left unread."""


def convert(path: Path, kind: BaseKind = "editing") -> Path:
    """Return the folder converted from `path`, kept in the cache under the file's fingerprint.

    The cache is `$CUSTOMIZE_CACHE`, else `~/.cache/customize`. Raises BaseModelError.
    """
    owner = f"base '{path}'"
    write, own = _write, path.with_suffix("")
    safe = path.suffix == ".safetensors"
    if kind == "editing" and safe and transformer.is_transformer(check_safetensors(path, owner)):
        write = transformer.write_folder
    else:
        check_kind(path, owner, kind)
    shapes = check_safetensors(path, owner)
    cache = Path(os.environ.get("CUSTOMIZE_CACHE", "~/.cache/customize")).expanduser() / "bases"
    folder = cache / _key(path, own)
    if (folder / "model_index.json").is_file():
        return folder
    room_for(path.stat().st_size, cache, owner)
    with written(owner, cache):
        remove(folder)  # half of a conversion, of a version that did not write whole ones
        try:
            with replacing_folder(folder) as temporary:
                write(path, shapes, own, temporary, owner)
        except OutputError:
            if not (folder / "model_index.json").is_file():  # else another process was first
                raise
    return folder


def _key(path: Path, own: Path) -> str:
    """Name a conversion by all that shapes it: the file and what lies in the folder beside it."""
    digest = hashlib.sha256(f"{_WRITTEN} {fingerprint([path], path.parent)}".encode())
    small = [p for p in sorted(own.rglob("*")) if p.suffix in {".json", ".txt"}]
    for beside in small:
        digest.update(f"{beside.relative_to(own).as_posix()}\n".encode() + beside.read_bytes())
    return digest.hexdigest()[:32]


def _write(path: Path, shapes: configs.Shapes, own: Path, folder: Path, owner: str) -> None:
    """Write every part of the diffusers folder, one component in memory at a time."""
    from customize.families.single_file.clip_vocabulary import write_tokenizer
    from customize.families.single_file.parts import write_component

    xl = configs.is_xl(shapes)
    derived = {
        "unet": configs.unet_config,
        "vae": configs.vae_config,
        "text_encoder": configs.first_text_config,
        **({"text_encoder_2": configs.second_text_config} if xl else {}),
    }
    for part, derive in derived.items():
        try:
            config = {**derive(shapes), **_beside(own / part / "config.json", owner)}
        except (KeyError, IndexError, ValueError) as error:
            raise BaseModelError(
                f"{owner}: its {part} is incomplete ({error} is missing or odd); expected a whole "
                "checkpoint with UNet, VAE and text encoder",
                "download it again",
            ) from None
        sizes = write_component(path, part, config, folder / part, owner)
        if part.startswith("text_encoder"):
            name = part.replace("text_encoder", "tokenizer")
            pad = "!" if part == "text_encoder_2" else "<|endoftext|>"
            write_tokenizer(folder / name, own / name, pad_token=pad, owner=owner, **sizes)
    schedule = _schedule(path, shapes, owner)
    schedule |= _beside(own / "scheduler" / "scheduler_config.json", owner)
    (folder / "scheduler").mkdir()
    _put(folder / "scheduler" / "scheduler_config.json", schedule)
    if (own / "customize.json").is_file():
        shutil.copy(own / "customize.json", folder / "customize.json")
    index = _index(xl, schedule) | _flags(_beside(own / "model_index.json", owner))
    _put(folder / "model_index.json", index)


def _index(xl: bool, schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Say as diffusers' `model_index.json` does which class reads each part."""
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", schedule["_class_name"]],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModel"],
    }
    if not xl:
        missing = {"safety_checker": [None, None], "feature_extractor": [None, None]}
        kind = "StableDiffusionInstructPix2PixPipeline"
        return {"_class_name": kind, **parts, **missing, "requires_safety_checker": False}
    parts["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
    parts["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
    kind = "StableDiffusionXLInstructPix2PixPipeline"
    return {"_class_name": kind, **parts, "force_zeros_for_empty_prompt": True}


def _schedule(path: Path, shapes: configs.Shapes, owner: str) -> dict[str, Any]:
    try:
        return configs.scheduler_config(shapes, metadata_of(path))
    except ValueError as error:
        raise BaseModelError(
            f"{owner}: what it says of its scheduler is damaged ({finding(error)}); expected the "
            "noise levels that `customize` writes",
            "download or export it again",
        ) from None


def _flags(index: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: index[key] for key in ("force_zeros_for_empty_prompt", "is_cosxl_edit") if key in index
    }


def _beside(path: Path, owner: str) -> dict[str, Any]:
    """Read a config of the folder beside the file; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        return dict(load_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise BaseModelError(
            f"{owner}: {path} beside it cannot be read ({finding(error)}); expected JSON",
            "correct or remove it",
        ) from None


def _put(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), "utf-8")
