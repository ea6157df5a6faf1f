"""A pool of encoded edits in memory: drawn and encoded once, sampled from many times."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from customize.embedded.fitting.autoencoder import stacked
from customize.embedded.models import LATENT_SIZE, SCALING_FACTOR, posterior_of
from customize.embedded.tokenizer import token_ids
from customize.embedded.world.edits import DrawnEdit, random_edit

CHANGED = 10
"""A pixel counts as changed when a channel differs by more than this (of 255)."""
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Pool:
    """Encoded edits: source modes unscaled and targets scaled, both float16 (N, 4, h, w).

    `weights_Nhw` weighs the error: where a small part of the picture changes it counts as much as
    the rest.
    """

    sources_NChw: Tensor
    targets_NChw: Tensor
    weights_Nhw: Tensor
    ids_NL: Tensor

    def batch(self, rng: np.random.Generator, count: int, device: str) -> Pool:
        """Take `count` edits at random."""
        rows = torch.from_numpy(rng.integers(len(self.ids_NL), size=count))
        return Pool(
            self.sources_NChw[rows].to(device).float(),
            self.targets_NChw[rows].to(device).float(),
            self.weights_Nhw[rows].to(device).float(),
            self.ids_NL[rows].to(device),
        )


def weights_of(sources_BHWC: np.ndarray, targets_BHWC: np.ndarray) -> np.ndarray:
    """Weigh latent cells (B, h, w) so that changed ones make about half of the sum; mean 1 a
    picture.
    """
    difference = np.abs(sources_BHWC.astype(np.int16) - targets_BHWC).max(axis=-1) > CHANGED
    side = LATENT_SIZE
    cells = difference.reshape(len(difference), side, -1, side, difference.shape[2] // side)
    changed_Bhw = cells.any(axis=(2, 4)).astype(np.float32)
    share_B = changed_Bhw.mean(axis=(1, 2), keepdims=True)
    factor = np.clip((1 - share_B) / np.maximum(share_B, 1e-3), 1.0, 6.0)
    weights = 1 + (factor - 1) * changed_Bhw
    return weights / weights.mean(axis=(1, 2), keepdims=True)


def kept_pool(path: Path, fill: Callable[[], Pool]) -> Pool:
    """Read a pool that an interrupted run left at `path`, or fill it and leave it there."""
    if not path.exists():
        pool = fill()
        temporary = path.with_suffix(".tmp")
        tensors = {f.name: getattr(pool, f.name).contiguous() for f in fields(Pool)}
        save_file(tensors, temporary)
        os.replace(temporary, path)
    return Pool(**load_file(path))


@torch.no_grad()
def fill_pool(
    size: int,
    seed: tuple[int, ...],
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    device: str = "cpu",
    quiet: bool = False,
) -> Pool:
    """Draw and encode `size` edits of the seed's own stretch of the world."""
    sources, targets, weights, ids = [], [], [], []
    for start in tqdm(
        range(0, size, ENCODED_AT_ONCE), desc="encode", disable=quiet, mininterval=10
    ):
        count = min(ENCODED_AT_ONCE, size - start)
        edits = [random_edit((*seed, start + index)) for index in range(count)]
        with torch.autocast(device, torch.bfloat16):
            both = torch.cat(stacked(edits)).to(device)
            modes = posterior_of(autoencoder, both).mode().float().cpu()
        source, target = modes.chunk(2)
        sources.append(source.half())
        targets.append((target * SCALING_FACTOR).half())
        weights.append(torch.from_numpy(_weights(edits)).half())
        ids.append(torch.from_numpy(token_ids(tokenizer, [edit.instruction for edit in edits])))
    return Pool(torch.cat(sources), torch.cat(targets), torch.cat(weights), torch.cat(ids))


def _weights(edits: list[DrawnEdit]) -> np.ndarray:
    sources = np.stack([edit.source_HWC for edit in edits])
    return weights_of(sources, np.stack([edit.target_HWC for edit in edits]))
