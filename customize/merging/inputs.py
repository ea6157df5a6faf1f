"""The adapters to merge: opened, checked against one another, and read a layer at a time."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from customize.adapters.at_base import check_fit
from customize.adapters.deltas import change_shapes
from customize.adapters.file import AdapterFile, read_adapter
from customize.adapters.header import Header
from customize.errors import AdapterFileError, MergeError

if TYPE_CHECKING:
    from customize.families.base import Base


@dataclass(frozen=True, eq=False)
class Input:
    """One adapter to merge, what its change is multiplied by, and the shape of each its layers."""

    path: Path
    weight: float
    adapter: AdapterFile
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def header(self) -> Header:
        """The adapter's header."""
        return self.adapter.header

    def rank(self, layer: str) -> int | None:
        """Return the rank of the layer's change, None where factors are not all there is to it."""
        tensors = self.adapter.tensors
        if f"{layer}.delta" in tensors or f"{layer}.magnitude" in tensors:
            return None
        return tensors[f"{layer}.lora_A"].shape[0]

    def factors(self, layer: str) -> tuple[Tensor, Tensor] | None:
        """Return (down, up), the scale within, where they are all there is to the layer."""
        if self.rank(layer) is None:
            return None
        tensors = self.adapter.tensors
        up = tensors[f"{layer}.lora_B"].float()
        return tensors[f"{layer}.lora_A"].float(), self.header.scale * up

    def needs_weight(self, layer: str) -> bool:
        """Whether the change depends on the base's weight, as DoRA's does."""
        return f"{layer}.magnitude" in self.adapter.tensors

    @cached_property
    def sha256(self) -> str:
        """The file's hash, 64 hex digits."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_inputs(
    files: Sequence[Path], weights: Sequence[float] | None, *, allow_other_base: bool = False
) -> tuple[Input, ...]:
    """Open adapters made for one base; `weights` None is 1 for each.

    Those made for other weights than the first are refused, or with `allow_other_base` warned of.
    Raises MergeError for none, a weight that is no number and adapters that cannot go together,
    AdapterFileError with every file that cannot be read.
    """
    if not files:
        raise MergeError("no adapter to merge; expected at least one; name adapter files")
    weights = [1.0] * len(files) if weights is None else weights
    if len(weights) != len(files) or not all(math.isfinite(weight) for weight in weights):
        given = ", ".join(f"{weight:g}" for weight in weights)
        raise MergeError(
            f"weights {given} of {len(files)} adapters; expected a finite number for each; "
            "1 is as trained"
        )
    inputs, faults = list[Input](), list[str]()
    for path, weight in zip(files, weights, strict=True):
        try:
            inputs.append(_open(path, weight))
        except AdapterFileError as error:
            faults.append(str(error))
    if faults:
        raise AdapterFileError(*dict.fromkeys(faults))
    _check_bases(inputs, allow_other_base)
    _check_shapes(inputs)
    return tuple(inputs)


def check_base(inputs: Sequence[Input], base: Base, *, allow_other_base: bool) -> None:
    """Refuse a base that adapters do not fit; refuse, or warn of, one with other weights.

    Raises AdapterFileError for a base of another family or with other layers, MergeError for other
    weights.
    """
    differences = [check_fit(item.adapter, base) for item in inputs]
    if first := differences[0]:
        _other_base(first, allow_other_base)


def _open(path: Path, weight: float) -> Input:
    adapter = read_adapter(path)
    return Input(path, float(weight), adapter, change_shapes(adapter))


def _check_bases(inputs: Sequence[Input], allow_other_base: bool) -> None:
    first = inputs[0]
    for other in inputs[1:]:
        if first.header.family != other.header.family:
            raise MergeError(
                f"{first.path} was made for a base of the family {first.header.family!r} "
                f"({first.header.base_name}) and {other.path} for {other.header.family!r} "
                f"({other.header.base_name}); expected one family; merge each with its own kind"
            )
    for other in inputs[1:]:
        if first.header.base_fingerprint != other.header.base_fingerprint:
            _other_base(
                f"{first.path} was made for {first.header.base_name!r} with weights "
                f"{first.header.base_fingerprint[:12]} and {other.path} for "
                f"{other.header.base_name!r} with weights {other.header.base_fingerprint[:12]}",
                allow_other_base,
            )


def _other_base(found: str, allow_other_base: bool) -> None:
    if not allow_other_base:
        raise MergeError(
            f"{found}; expected one base; teach again on the same one, or add --allow-other-base "
            "if they are versions of one another"
        )
    warnings.warn(f"{found}: the merge may do less, or something else", stacklevel=3)


def _check_shapes(inputs: Sequence[Input]) -> None:
    seen: dict[str, Input] = {}
    for item in inputs:
        for layer, shape in item.shapes.items():
            earlier = seen.setdefault(layer, item)
            if earlier.shapes[layer] != shape:
                raise MergeError(
                    f"the layer {layer} has shape {list(earlier.shapes[layer])} in {earlier.path} "
                    f"and {list(shape)} in {item.path}; expected adapters of one base; leave one "
                    "out"
                )


def placeholder(shape: tuple[int, ...]) -> Tensor:
    """Stand for a base weight of which only the shape counts, without its memory."""
    return torch.zeros(()).expand(shape)
