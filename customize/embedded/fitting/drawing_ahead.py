"""Drawings by number, made ahead by other processes: a GPU learns faster than one process draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing import get_all_start_methods, get_context
from sys import maxsize
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

Drawing = TypeVar("Drawing")
AHEAD = 3
"""How many finished drawings may wait for each process."""


def drawers_for(wanted: int | None, device: str) -> int:
    """Choose how many processes draw: on a GPU all cores but one, elsewhere none but the asker."""
    if wanted is not None:
        return wanted
    return 0 if device == "cpu" else max(1, (os.cpu_count() or 1) - 1)


class _Numbered(Dataset[Drawing]):
    """Drawings as torch's loader asks for them."""

    def __init__(self, draw: Callable[[int], Drawing]) -> None:
        self.draw = draw

    def __getitem__(self, number: int) -> Drawing:
        return self.draw(number)


class DrawnAhead(Generic[Drawing]):
    """Gives the drawings of a function by number; `processes` draw those that follow meanwhile.

    What they draw arrives in shared memory where it is made of tensors. With 0 processes everything
    is drawn when it is asked for. The function must be one that processes can be sent.
    """

    def __init__(self, draw: Callable[[int], Drawing], processes: int) -> None:
        """Start nothing yet: the first number asked for is where drawing begins."""
        self.draw, self.processes = draw, processes
        self.next, self.coming = 0, None

    def __call__(self, number: int) -> Drawing:
        """Give a drawing; numbers in order cost no waiting, others start anew."""
        if not self.processes:
            return self.draw(number)
        if self.coming is None or number != self.next:
            self.coming = self._start(number)
        self.next = number + 1
        return next(self.coming)

    def _start(self, first: int) -> Iterator[Drawing]:
        loader = DataLoader(
            _Numbered(self.draw),
            batch_size=None,
            sampler=range(first, maxsize),
            num_workers=self.processes,
            prefetch_factor=AHEAD,
            multiprocessing_context=_context(),
        )
        return iter(loader)

    def close(self) -> None:
        """End the processes."""
        self.coming = None


def _context() -> Any:
    """Fork from a process that has imported torch: this one's CUDA threads may hold locks."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["customize.embedded.fitting.latent_pool"])
    return context
