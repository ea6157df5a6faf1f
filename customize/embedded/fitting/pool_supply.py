"""One pool of encoded edits after another; drawers make the next while one is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from customize.embedded.fitting.drawing_ahead import DrawnAhead
from customize.embedded.fitting.latent_pool import (
    ChunkDrawer,
    DrawnChunk,
    Pool,
    encode_pool,
    kept_pool,
)
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.folder import Parts
from customize.embedded.models import size_of


class PoolSupply:
    """Gives the pools of one worker by number; leave it as a context, so that its helpers end.

    Without drawers the newest pool is kept in `folder` for a run that goes on. With them a pool is
    a matter of seconds: they draw the next, which a thread encodes meanwhile.
    """

    def __init__(
        self,
        parts: Parts,
        size: int,
        seed: tuple[int, ...],
        folder: Path,
        worker: Worker,
        drawers: int = 0,
    ) -> None:
        """Supply pools of `size` edits."""
        self.parts, self.folder, self.worker = parts, folder, worker
        self.drawer = ChunkDrawer(size, seed, worker.rank, size_of(parts.vae), parts.tokenizer)
        self.chunk = DrawnAhead(self.drawer, drawers)
        self.thread = ThreadPoolExecutor(1) if drawers else None
        self.newest: tuple[int, Pool] | None = None
        self.coming: tuple[int, Future[Pool]] | None = None
        self.closed = False

    def __enter__(self) -> PoolSupply:
        """Nothing starts before a pool is asked for."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up the pool in the making and end the drawing processes."""
        self.closed = True
        if self.thread is not None:
            self.thread.shutdown()
        self.chunk.close()

    def pool(self, number: int) -> Pool:
        """Give the pool of a number, from memory, from disk or newly drawn."""
        if self.newest is None or self.newest[0] != number:
            self.newest = None
            made = self._kept(number) if self.thread is None else self._made_ahead(number)
            self.newest = number, made
        return self.newest[1]

    def _kept(self, number: int) -> Pool:
        prefix, suffix = "pool", f"{self.drawer.size}-{self.worker.rank}.safetensors"
        path = self.folder / f"{prefix}-{number}-{suffix}"
        for old in self.folder.glob(f"{prefix}-*-{self.worker.rank}.safetensors"):
            if old != path:
                old.unlink()
        return kept_pool(path, lambda: self._encoded(number), f"{path.name} {self.drawer.seed}")

    def _made_ahead(self, number: int) -> Pool:
        assert self.thread is not None
        if self.coming is None or self.coming[0] != number:
            self.coming = number, self.thread.submit(self._encoded, number)
        pool = self.coming[1].result()
        self.coming = number + 1, self.thread.submit(self._encoded, number + 1)
        return pool

    def _encoded(self, number: int) -> Pool:
        with _beside_training(self.worker.device):
            return encode_pool(self._chunks(number), self.parts.vae, self.worker.device)

    def _chunks(self, number: int) -> Iterator[DrawnChunk]:
        first = number * self.drawer.chunks
        for place in range(first, first + self.drawer.chunks):
            if self.closed:
                break
            yield self.chunk(place)


def _beside_training(device: str) -> AbstractContextManager[Any]:
    """Queue what a GPU is asked for here beside, and not behind, what it does for training."""
    if device == "cpu":
        return nullcontext()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.default_stream())
    return torch.cuda.stream(stream)
