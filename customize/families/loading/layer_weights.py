"""Single weights of a base by the names that adapters use, without loading the model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from customize.errors import BaseModelError
from customize.families import profile_of
from customize.families.loading.weight_files import check_safetensors, component_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from torch import Tensor

    from customize.families.base import Base

_AT_ONCE = 32
"""Weights read from a file that is opened once: opening a large one takes longer than a weight."""


class BaseWeights:
    """Map `denoiser.<path>`, `text_encoder.<path>` and so on to the layers' weights.

    Each is read when asked for, in the precision of its file, and nothing is kept: what an open map
    has touched would count as memory. Paths are those of modules without `text_model.`, which some
    text encoders have in their files; sharded files and variants are read as the base loads them.
    Raises BaseModelError where a component's files are missing or damaged.
    """

    def __init__(self, base: Base) -> None:
        """List the weights of `base`: headers are read, tensors are not."""
        self._name = base.name
        self._places: dict[str, tuple[Path, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for model, part in profile_of(base.family).models.items():
            if (base.folder / part).is_dir():
                self._add(model, base.folder / part)

    def _add(self, model: str, folder: Path) -> None:
        owner = f"base {self._name!r}"
        for path in component_files(folder, owner)[0]:
            for tensor, shape in check_safetensors(path, owner).items():
                module, _, kind = tensor.removeprefix("text_model.").rpartition(".")
                if kind == "weight":
                    self._places[f"{model}.{module}"] = (path, tensor)
                    self._shapes[f"{model}.{module}"] = shape

    def __getitem__(self, layer: str) -> Tensor:
        """Read a layer's weight; raises BaseModelError for a layer that this base lacks."""
        path, tensor = self._places[self._known(layer)]
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(tensor)

    def several(self, layers: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Read many layers' weights in their order, each as `[]` would, but in less time."""
        wanted = [*layers]
        for start in range(0, len(wanted), _AT_ONCE):
            with ExitStack() as stack:
                files: dict[Path, Any] = {}
                for layer in wanted[start : start + _AT_ONCE]:
                    path, tensor = self._places[self._known(layer)]
                    if path not in files:
                        files[path] = stack.enter_context(safe_open(path, framework="pt"))
                    yield layer, files[path].get_tensor(tensor)

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return a layer's shape, raising as reading it does."""
        return self._shapes[self._known(layer)]

    def layers(self) -> Iterator[str]:
        """Name every layer that has a weight."""
        return iter(self._places)

    def __contains__(self, layer: object) -> bool:
        """Tell whether the base has a layer of that name."""
        return layer in self._places

    def _known(self, layer: str) -> str:
        if layer not in self._places:
            raise BaseModelError(
                f"base {self._name!r}: it has no layer {layer}; expected the base that the adapter "
                "was made for",
                "name that base",
            )
        return layer
