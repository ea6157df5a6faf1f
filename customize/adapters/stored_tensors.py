"""Tensors of a file whose memory goes soon after they do, so that many files can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_TOUCHED = 4 * 2**20


class StoredTensors(Mapping[str, "Tensor"]):
    """Tensors of a file, which is mapped anew after every few megabytes that were read.

    A map kept open would hold every page ever read, so 50 adapters would count as 50 in memory;
    this way pages go soon after their tensors.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Take the shapes of all tensors; nothing is read yet."""
        self._path, self.shapes = path, dict(sorted(shapes.items()))
        self._file, self._touched = self._open(), 0

    def __getitem__(self, name: str) -> Tensor:
        """Map one tensor."""
        if name not in self.shapes:
            raise KeyError(name)
        if self._touched > _TOUCHED:
            self._file, self._touched = self._open(), 0
        tensor: Tensor = self._file.get_tensor(name)
        self._touched += tensor.nbytes
        return tensor

    def _open(self) -> Any:
        from safetensors import safe_open

        return safe_open(self._path, framework="pt")

    def __contains__(self, name: object) -> bool:
        """Tell whether a tensor is there, without reading it."""
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        """Run over the names, sorted."""
        return iter(self.shapes)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self.shapes)
