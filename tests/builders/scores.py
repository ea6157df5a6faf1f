"""What is scored in tests: a toy DINO, finished edits in folders and tables, adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from builders.bases import toy_header
from customize.adapters.file import save_adapter
from customize.adapters.header import Taught
from customize.families.base import EMBEDDED

CLIP = EMBEDDED / "clip"
NEAR = 1e-4


def toy_dino(folder: Path, kind: str) -> Path:
    """Write a DINO at toy width."""
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if kind == "dinov2":
            Dinov2Model(Dinov2Config(**shape)).save_pretrained(folder)
        else:
            ViTModel(ViTConfig(**shape), add_pooling_layer=False).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder


def picture(path: Path, seed: int = 0, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pairs_folder(folder: Path, instructions: list[str]) -> Path:
    rows: list[str] = []
    for index, instruction in enumerate(instructions):
        picture(folder / f"{index}_a.png", 2 * index)
        picture(folder / f"{index}_b.png", 2 * index + 1)
        row = {
            "source": f"{index}_a.png",
            "instruction": instruction,
            "edited": f"{index}_b.png",
            "source_caption": "a dog",
            "edited_caption": "<my-dog>",
        }
        rows.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder


def table(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "edits.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def adapter(path: Path, word: str = "<my-dog>") -> Path:
    taught = Taught("dog", word, "dog", 1, (f"turn it into {word}",))
    header = toy_header(base_name="embedded", concepts=(taught,))
    rows = {f"words.text_encoder.{word}": torch.zeros(1, 4)}
    return save_adapter(path, header, {"denoiser.a.delta": torch.zeros(2, 2), **rows})
