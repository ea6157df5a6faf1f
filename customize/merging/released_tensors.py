"""Tensors of a file whose memory goes soon after they do, so that many files can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

_TOUCHED = 4 * 2**20


class ReleasedTensors(Mapping[str, Tensor]):
    """Tensors of a file, which is mapped anew after every few megabytes that were read.

    A map kept open would hold every page ever read, so 50 adapters would count as 50 in memory;
    this way pages go soon after their tensors.
    """

    def __init__(self, path: Path) -> None:
        """Read names and shapes alone."""
        self._path, self._file, self._touched = path, self._open(path), 0
        names = sorted(self._file.keys())
        self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in names}

    def __getitem__(self, name: str) -> Tensor:
        """Map one tensor."""
        if name not in self.shapes:
            raise KeyError(name)
        if self._touched > _TOUCHED:
            self._file, self._touched = self._open(self._path), 0
        tensor: Tensor = self._file.get_tensor(name)
        self._touched += tensor.nbytes
        return tensor

    @staticmethod
    def _open(path: Path) -> Any:
        return safe_open(path, framework="pt")

    def __contains__(self, name: object) -> bool:
        """Tell whether a tensor is there, without reading it."""
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        """Run over the names, sorted."""
        return iter(self.shapes)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self.shapes)
