"""A pool of encoded edits in memory: drawn and encoded once, learned from twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from customize.embedded.fitting.autoencoder import to_unit
from customize.embedded.fitting.loop import autocast
from customize.embedded.models import LATENT_SIZE, SCALING_FACTOR, posterior_of
from customize.embedded.tokenizer import padded_ids
from customize.embedded.world.edits import DrawnEdit, random_edits
from customize.files.tensors import DamagedError, read_tensors, save_tensors

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
    least, most = np.minimum(sources_BHWC, targets_BHWC), np.maximum(sources_BHWC, targets_BHWC)
    changed = most - least > CHANGED
    side = LATENT_SIZE
    rows = changed.reshape(len(changed), side, -1, *changed.shape[2:]).max(axis=2)
    return rows.reshape(len(changed), side, side, -1).max(axis=3)


def weights_of(changed_Bhw: Tensor) -> Tensor:
    """Weigh latent cells so that changed ones make about half of the sum; mean 1 a picture."""
    changed = changed_Bhw.float()
    share_B11 = changed.mean(dim=(1, 2), keepdim=True)
    factor = ((1 - share_B11) / share_B11.clamp(min=1e-3)).clamp(1.0, 6.0)
    weights = 1 + (factor - 1) * changed
    return weights / weights.mean(dim=(1, 2), keepdim=True)


def kept_pool(path: Path, fill: Callable[[], Pool], key: str = "") -> Pool:
    """Read the pool that an interrupted run left at `path` under `key`, or fill and leave one."""
    try:
        tensors, _ = read_tensors(path, key=key)
    except (FileNotFoundError, DamagedError):
        pool = fill()
        save_tensors(path, {f.name: getattr(pool, f.name) for f in fields(Pool)}, key=key)
        return pool
    return Pool(**tensors)


@dataclass(frozen=True)
class DrawnChunk:
    """Some drawn edits, their pictures not encoded yet: uint8 (S, H, W, 3) and (N, H, W, 3).

    `source_of_N` says which source each of them changes; the rest is as in a pool.
    """

    sources_SHWC: Tensor
    source_of_N: Tensor
    targets_NHWC: Tensor
    changed_Nhw: Tensor
    instructions_NL: Tensor
    captions_NL: Tensor


@dataclass(frozen=True)
class ChunkDrawer:
    """Draws pools of `size` edits chunk by chunk, numbered on and on, in pictures of `side` px."""

    size: int
    seed: tuple[int, ...]
    rank: int
    side: int
    tokenizer: CLIPTokenizer

    @property
    def chunks(self) -> int:
        """Count the chunks of a pool."""
        return -(-self.size // ENCODED_AT_ONCE)

    def __call__(self, number: int) -> DrawnChunk:
        """Draw a chunk: those of the first pool come first, the next pool's follow."""
        pool, place = divmod(number, self.chunks)
        start = place * ENCODED_AT_ONCE
        seed, count = (*self.seed, pool, self.rank, start), min(ENCODED_AT_ONCE, self.size - start)
        return draw_chunk(seed, count, self.side, self.tokenizer)


def draw_chunk(
    seed: tuple[int, ...], count: int, size: int, tokenizer: CLIPTokenizer
) -> DrawnChunk:
    """Draw `count` edits of the seed's own stretch of the world; a shared source is kept once."""
    edits: list[DrawnEdit] = []
    while len(edits) < count:
        edits += random_edits((*seed, len(edits)), size=size)
    edits = edits[:count]
    sources = {id(edit.source_HWC): edit.source_HWC for edit in edits}
    places = {key: place for place, key in enumerate(sources)}
    rows = [places[id(edit.source_HWC)] for edit in edits]
    sources_SHWC = np.stack(list(sources.values()))
    targets_NHWC = np.stack([edit.target_HWC for edit in edits])
    arrays = (
        sources_SHWC,
        np.array(rows),
        targets_NHWC,
        changed_cells(sources_SHWC[rows], targets_NHWC),
        padded_ids(tokenizer, [edit.instruction for edit in edits]),
        padded_ids(tokenizer, [edit.target_caption for edit in edits]),
    )
    return DrawnChunk(*(torch.from_numpy(array) for array in arrays))


@torch.no_grad()
def encode_pool(
    chunks: Iterable[DrawnChunk], autoencoder: AutoencoderKL, device: str = "cpu"
) -> Pool:
    """Encode drawn edits chunk by chunk; the pool lies in the CPU's memory."""
    parts = [_encoded(chunk, autoencoder, device) for chunk in chunks]
    columns = zip(*([getattr(part, f.name) for f in fields(Pool)] for part in parts), strict=True)
    return Pool(*(torch.cat(column) for column in columns))


def _encoded(chunk: DrawnChunk, autoencoder: AutoencoderKL, device: str) -> Pool:
    pictures = torch.cat((chunk.sources_SHWC, chunk.targets_NHWC))
    if device != "cpu":  # a GPU measures anew what is fastest for each number of pictures
        pictures = F.pad(pictures, (0,) * 7 + (2 * len(chunk.source_of_N) - len(pictures),))
    pictures = pictures.to(device)
    with autocast(torch.device(device)):
        modes = posterior_of(autoencoder, to_unit(pictures)).mode().float().cpu()
    count = len(chunk.sources_SHWC)
    return Pool(
        modes[chunk.source_of_N].half(),
        (modes[count : count + len(chunk.source_of_N)] * SCALING_FACTOR).half(),
        chunk.changed_Nhw,
        chunk.instructions_NL,
        chunk.captions_NL,
    )
