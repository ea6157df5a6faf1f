"""What one merge works on: its inputs, their words, and the base, opened only when it counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from customize.adapters.at_base import base_for
from customize.families import profile_of
from customize.families.base import Base, resolve_base
from customize.families.loading.layer_weights import BaseWeights
from customize.merging.inputs import Input, check_base, open_inputs
from customize.merging.layers import MergedLayer
from customize.merging.vocabulary import Vocabulary, gather_concepts

if TYPE_CHECKING:
    from torch import Tensor

    from customize.families.profile import Profile


@dataclass(frozen=True)
class Job:
    """The adapters to merge, all that they were taught, and the name of the base they share.

    `named` is what the base is called, None for the one that the first adapter names.
    """

    inputs: tuple[Input, ...]
    vocabulary: Vocabulary
    named: str | None = None
    allow_other_base: bool = False

    @property
    def base_name(self) -> str:
        """The base's name; raises AdapterFileError where the first adapter's is not known here."""
        return base_for(self.inputs[0].header) if self.named is None else self.named

    @cached_property
    def base(self) -> Base:
        """The base itself, found and checked against the adapters when first asked for."""
        base = resolve_base(self.base_name)
        check_base(self.inputs, base, allow_other_base=self.allow_other_base)
        return base

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the inputs are read from."""
        return tuple(item.path for item in self.inputs)

    @property
    def profile(self) -> Profile:
        """What is known of all bases of the adapters' family."""
        return profile_of(self.inputs[0].header.family)

    @cached_property
    def _weights(self) -> BaseWeights:
        return BaseWeights(self.base)

    def weight_of(self, layer: str) -> Tensor:
        """Read a layer's untouched weight."""
        return self._weights[layer]

    def __len__(self) -> int:
        """Count the layers that any input changes."""
        return len(self._names)

    def layers(self) -> Iterator[MergedLayer]:
        """Run over the layers that any input changes, by name."""
        return map(self.layer, self._names)

    def layer(self, name: str) -> MergedLayer:
        """Return a layer with the inputs that change it."""
        changing = tuple(item for item in self.inputs if name in item.shapes)
        return MergedLayer(name, changing, self.weight_of)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(sorted({name for item in self.inputs for name in item.shapes}))


def open_job(
    files: Sequence[Path],
    weights: Sequence[float] | None = None,
    *,
    base: str | None = None,
    allow_other_base: bool = False,
) -> Job:
    """Open the adapters to merge; `base` None is the base that the first one names.

    Raises MergeError and AdapterFileError as `open_inputs` does.
    """
    inputs = open_inputs(files, weights, allow_other_base=allow_other_base)
    return Job(inputs, gather_concepts(inputs), base, allow_other_base)
