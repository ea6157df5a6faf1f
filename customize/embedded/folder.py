"""The embedded base as a folder on disk: diffusers' pipeline layout, the small CLIP beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from customize.embedded.models import (
    new_autoencoder,
    new_clip,
    new_clip_processor,
    new_scheduler,
    new_text_encoder,
    new_unet,
)
from customize.embedded.world.edits import random_edit
from customize.families.loading.default_precision import open_in_float32
from customize.files import forget_places, replacing_folder

EDIT_DEFAULTS = {"steps": 4, "text_guidance": 1.2, "image_guidance": 1.1, "detail": "keep"}
"""How the base is shipped and measured to be edited with."""

DRAW_DEFAULTS = {"steps": 16, "guidance": [2.0, 5.0]}
"""The settings of its text-to-image twin: it learned captions without a source as well."""


@dataclass(frozen=True)
class Parts:
    """Everything the base is made of."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    clip: CLIPModel
    tokenizer: CLIPTokenizer

    def modules(self) -> Iterator[nn.Module]:
        """List what is trained together, stage by stage."""
        yield from (self.vae, nn.ModuleList([self.unet, self.text_encoder]), self.clip)

    def to(self, device: str) -> Parts:
        """Move every module."""
        for module in self.modules():
            module.to(device)
        return self


def new_parts(tokenizer: CLIPTokenizer, size: int) -> Parts:
    """Make an untrained base for pictures of `size` pixels a side."""
    return Parts(
        new_autoencoder(size),
        new_unet(),
        new_text_encoder(tokenizer),
        new_clip(tokenizer),
        tokenizer,
    )


def read_parts(folder: Path) -> Parts:
    """Open a finished base in float32, to train it further."""
    dtype = torch.float32
    return Parts(
        AutoencoderKL.from_pretrained(folder / "vae", dtype=dtype),
        UNet2DConditionModel.from_pretrained(folder / "unet", dtype=dtype),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
        CLIPModel.from_pretrained(folder / "clip", dtype=dtype),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
    )


def write_folder(parts: Parts, folder: Path) -> None:
    """Write the base as fp16 safetensors, to a temporary folder that is renamed into place."""
    optional: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    scheduler: Any = new_scheduler()
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=parts.vae.half(),
        text_encoder=parts.text_encoder.half(),
        tokenizer=parts.tokenizer,
        unet=parts.unet.half(),
        scheduler=scheduler,
        requires_safety_checker=False,
        **optional,
    )
    with replacing_folder(folder) as temporary:
        pipeline.save_pretrained(temporary)
        _write_word_lists(parts.tokenizer, temporary / "tokenizer")
        parts.clip.half().save_pretrained(temporary / "clip")
        new_clip_processor().save_pretrained(temporary / "clip")
        parts.tokenizer.save_pretrained(temporary / "clip")
        _write_word_lists(parts.tokenizer, temporary / "clip")
        about = {
            "edit": EDIT_DEFAULTS,
            "text_to_image": DRAW_DEFAULTS,
            "instructions": known_instructions(),
        }
        (temporary / "customize.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
        forget_places(temporary)
        open_in_float32(temporary)


def known_instructions(count: int = 160) -> list[str]:
    """List edits that the base knows, drawn as its training drew them: what adapters preserve."""
    drawn = (random_edit((6, index)).instruction for index in range(4 * count))
    return list(dict.fromkeys(drawn))[:count]


def _write_word_lists(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write `vocab.json` and `merges.txt`, which transformers 5 leaves out and other front ends
    read.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
