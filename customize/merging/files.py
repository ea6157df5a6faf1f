"""Merge adapter files into one adapter file, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from customize.adapters.header import Header
from customize.merging import Limits, Method

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Merged:
    """What a merge wrote.

    `losses` has the relative error of truncation of each layer that was cut, `kept` how far each
    input's constraints are missed (relative; by file name), `otherwise` the layers whose inputs are
    not text alone, `renamed` old and new words.
    """

    path: Path
    header: Header
    losses: Mapping[str, float]
    missed: Mapping[str, float]
    otherwise: tuple[str, ...]


def merge(
    files: Sequence[Path],
    output: Path,
    method: Method,
    *,
    weights: Sequence[float] | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    allow_other_base: bool = False,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge adapter files by exact changes of weights and write `output`, whole or not at all.

    `weights` None is 1 for each. `base` names the base, by default the first file's own; it is
    opened only where its weights or its text encoder are needed. Raises MergeError,
    AdapterFileError, OutputExistsError.
    """
    raise NotImplementedError
