"""A pool of encoded edits in memory: drawn and encoded once, learned from twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from customize.embedded.fitting.autoencoder import to_unit
from customize.embedded.fitting.loop import autocast
from customize.embedded.models import LATENT_SIZE, SCALING_FACTOR, posterior_of
from customize.embedded.tokenizer import token_ids
from customize.embedded.world.edits import DrawnEdit, random_edits

CHANGED = 10
"""A pixel counts as changed when a channel differs by more than this (of 255)."""
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Pool:
    """Encoded edits: source modes unscaled and targets scaled, both float16 (N, 4, h, w).

    `changed_Nhw` tells which latent cells change; the ids are of instructions and of the targets'
    captions. Edits of one scene lie side by side.
    """

    sources_NChw: Tensor
    targets_NChw: Tensor
    changed_Nhw: Tensor
    instructions_NL: Tensor
    captions_NL: Tensor

    def rows(self, numbers: Tensor, device: str) -> Pool:
        """Take the edits at `numbers`, in float32."""
        return Pool(
            self.sources_NChw[numbers].to(device).float(),
            self.targets_NChw[numbers].to(device).float(),
            self.changed_Nhw[numbers].to(device),
            self.instructions_NL[numbers].to(device),
            self.captions_NL[numbers].to(device),
        )


def shuffled_rows(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Put the edits of a pool into batches of `count`, each edit once: (batches, count).

    Runs of neighbours stay together, so that edits which differ in one word meet in one batch.
    """
    length = next(n for n in (4, 3, 2, 1) if count % n == 0)
    runs_NR = np.arange(size // length * length).reshape(-1, length)
    rows_N = runs_NR[rng.permutation(len(runs_NR))].reshape(-1)
    return rows_N[: len(rows_N) // count * count].reshape(-1, count)


def changed_cells(sources_BHWC: np.ndarray, targets_BHWC: np.ndarray) -> np.ndarray:
    """Tell which latent cells hold a pixel that changes, bool (B, h, w)."""
    difference = np.abs(sources_BHWC.astype(np.int16) - targets_BHWC).max(axis=-1) > CHANGED
    side = LATENT_SIZE
    cells = difference.reshape(len(difference), side, -1, side, difference.shape[2] // side)
    return cells.any(axis=(2, 4))


def weights_of(changed_Bhw: Tensor) -> Tensor:
    """Weigh latent cells so that changed ones make about half of the sum; mean 1 a picture."""
    changed = changed_Bhw.float()
    share_B11 = changed.mean(dim=(1, 2), keepdim=True)
    factor = ((1 - share_B11) / share_B11.clamp(min=1e-3)).clamp(1.0, 6.0)
    weights = 1 + (factor - 1) * changed
    return weights / weights.mean(dim=(1, 2), keepdim=True)


def kept_pool(path: Path, fill: Callable[[], Pool]) -> Pool:
    """Read a pool that an interrupted run left at `path`, or fill it and leave it there."""
    if not path.exists():
        pool = fill()
        temporary = path.with_suffix(".tmp")
        tensors = {f.name: getattr(pool, f.name).contiguous() for f in fields(Pool)}
        save_file(tensors, temporary)
        os.replace(temporary, path)
    return Pool(**load_file(path))


@dataclass(frozen=True)
class DrawnChunk:
    """Some drawn edits, not encoded yet; `source_of` says which source each of them changes."""

    sources_SHWC: np.ndarray
    source_of: tuple[int, ...]
    targets_NHWC: np.ndarray
    instructions: tuple[str, ...]
    captions: tuple[str, ...]


def draw_chunk(seed: tuple[int, ...], count: int, size: int) -> DrawnChunk:
    """Draw `count` edits of the seed's own stretch of the world; a shared source is kept once."""
    edits: list[DrawnEdit] = []
    while len(edits) < count:
        edits += random_edits((*seed, len(edits)), size=size)
    edits = edits[:count]
    sources = {id(edit.source_HWC): edit.source_HWC for edit in edits}
    places = {key: place for place, key in enumerate(sources)}
    return DrawnChunk(
        np.stack(list(sources.values())),
        tuple(places[id(edit.source_HWC)] for edit in edits),
        np.stack([edit.target_HWC for edit in edits]),
        tuple(edit.instruction for edit in edits),
        tuple(edit.target_caption for edit in edits),
    )


def chunk_seeds(size: int, seed: tuple[int, ...]) -> list[tuple[tuple[int, ...], int]]:
    """Cut a pool of `size` edits into chunks: (seed, edits) of each."""
    starts = range(0, size, ENCODED_AT_ONCE)
    return [((*seed, start), min(ENCODED_AT_ONCE, size - start)) for start in starts]


@torch.no_grad()
def encode_pool(
    chunks: Iterable[DrawnChunk],
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    device: str = "cpu",
) -> Pool:
    """Encode drawn edits chunk by chunk."""
    parts = [_encoded(chunk, autoencoder, tokenizer, device) for chunk in chunks]
    columns = zip(*([getattr(part, f.name) for f in fields(Pool)] for part in parts), strict=True)
    return Pool(*(torch.cat(column) for column in columns))


def _encoded(
    chunk: DrawnChunk, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, device: str
) -> Pool:
    pictures = np.concatenate((chunk.sources_SHWC, chunk.targets_NHWC))
    with autocast(torch.device(device)):
        modes = posterior_of(autoencoder, to_unit(pictures).to(device)).mode().float().cpu()
    count, rows = len(chunk.sources_SHWC), list(chunk.source_of)
    changed = changed_cells(chunk.sources_SHWC[rows], chunk.targets_NHWC)
    return Pool(
        modes[:count][rows].half(),
        (modes[count:] * SCALING_FACTOR).half(),
        torch.from_numpy(changed),
        torch.from_numpy(token_ids(tokenizer, list(chunk.instructions))),
        torch.from_numpy(token_ids(tokenizer, list(chunk.captions))),
    )
