"""One pool of encoded edits after another, drawn ahead by other processes where there is a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from customize.embedded.fitting.latent_pool import (
    DrawnChunk,
    Pool,
    chunk_seeds,
    draw_chunk,
    encode_pool,
    kept_pool,
)
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.folder import Parts
from customize.embedded.models import size_of


class PoolSupply:
    """Gives the pools of one worker by number, keeping the newest on disk for a run that goes on.

    A GPU learns faster than one process draws: there all cores draw the next pool meanwhile.
    """

    def __init__(
        self, parts: Parts, size: int, seed: tuple[int, ...], folder: Path, worker: Worker
    ) -> None:
        """Supply pools of `size` edits; `folder` keeps the newest."""
        self.parts, self.size, self.seed = parts, size, seed
        self.folder, self.worker = folder, worker
        self.newest: tuple[int, Pool] | None = None
        self.ahead: dict[int, list[Future[DrawnChunk]]] = {}
        self.drawers = None
        if worker.device != "cpu":
            self.drawers = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))

    def pool(self, number: int) -> Pool:
        """Give the pool of a number, from memory, from disk or newly drawn."""
        if self.newest is None or self.newest[0] != number:
            self.newest = None
            prefix, suffix = "pool", f"{self.size}-{self.worker.rank}.safetensors"
            path = self.folder / f"{prefix}-{number}-{suffix}"
            for old in self.folder.glob(f"{prefix}-*-{self.worker.rank}.safetensors"):
                if old != path:
                    old.unlink()
            self.newest = number, kept_pool(path, lambda: self._encoded(number))
        return self.newest[1]

    def _encoded(self, number: int) -> Pool:
        parts, device = self.parts, self.worker.device
        return encode_pool(self._chunks(number), parts.vae, parts.tokenizer, device)

    def _chunks(self, number: int) -> Iterable[DrawnChunk]:
        size = size_of(self.parts.vae)
        if self.drawers is None:
            return (draw_chunk(*chunk, size) for chunk in self._seeds(number))
        for wanted in (number, number + 1):
            if wanted not in self.ahead:
                self.ahead[wanted] = [
                    self.drawers.submit(draw_chunk, *chunk, size) for chunk in self._seeds(wanted)
                ]
        return (future.result() for future in self.ahead.pop(number))

    def _seeds(self, number: int) -> list[tuple[tuple[int, ...], int]]:
        return chunk_seeds(self.size, (*self.seed, number, self.worker.rank))
