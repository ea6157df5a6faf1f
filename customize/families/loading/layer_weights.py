"""Single weights of a base by the names that adapters use, without loading the model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

from safetensors import safe_open

from customize.errors import BaseModelError
from customize.families.loading.weight_files import check_safetensors, component_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from customize.families.base import Base, FamilyName

_FOLDERS = {
    "denoiser": ("unet", "transformer"),
    "text_encoder": ("text_encoder",),
    "text_encoder_2": ("text_encoder_2",),
}


class BaseWeights:
    """Map `denoiser.<path>`, `text_encoder.<path>`, `text_encoder_2.<path>` to the layers' weights.

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
        for component, folders in _FOLDERS.items():
            for folder in folders:
                if (base.folder / folder).is_dir():
                    self._add(component, base.folder / folder)

    def _add(self, component: str, folder: Path) -> None:
        owner = f"base {self._name!r}"
        for path in component_files(folder, owner)[0]:
            for tensor, shape in check_safetensors(path, owner).items():
                module, _, kind = tensor.removeprefix("text_model.").rpartition(".")
                if kind == "weight":
                    self._places[f"{component}.{module}"] = (path, tensor)
                    self._shapes[f"{component}.{module}"] = shape

    def __getitem__(self, layer: str) -> Tensor:
        """Read a layer's weight; raises BaseModelError for a layer that this base lacks."""
        path, tensor = self._places[self._known(layer)]
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(tensor)

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


def reads_text_alone(family: FamilyName, layer: str) -> bool:
    """Tell whether a layer's inputs are the encoded text, the same at every step and picture."""
    component, _, path = layer.partition(".")
    return component == "denoiser" and re.fullmatch(_kv_pattern(family), path) is not None


def _kv_pattern(family: FamilyName) -> str:
    match family:
        case "instruct_pix2pix":
            from customize.families.stable_diffusion.instruct_pix2pix import InstructPix2Pix

            return InstructPix2Pix.kv_pattern
        case "instruct_pix2pix_xl":
            from customize.families.stable_diffusion.instruct_pix2pix_xl import InstructPix2PixXL

            return InstructPix2PixXL.kv_pattern
        case _:
            assert_never(family)
