"""The adapter file users keep and share: named tensors under a versioned header.

The header is JSON under the metadata key `customize`. Tensor names are explained in
`customize.adapters`. Every command opens adapters by `read_adapter`, and none writes one that it
would refuse.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from customize.adapters.check_contents import Size, fault_of
from customize.adapters.header import Header, dump_header, parse_header, unusable
from customize.adapters.open_safetensors import open_safetensors
from customize.errors import AdapterFileError
from customize.files import refuse_existing, replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_KEY = "customize"
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class AdapterFile:
    """A header and tensors by name; from disk they are mapped, each loaded when asked for."""

    header: Header
    tensors: Mapping[str, Tensor]


def save_adapter(
    path: Path,
    header: Header,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an adapter whole or not at all; `dtype` None keeps the tensors' own precision.

    Raises OutputExistsError when `path` is there already and may not be replaced, AdapterFileError
    for what could not be read again.
    """
    from customize.files.tensors import write_safetensors

    refuse_existing(path, overwrite=overwrite)
    with replacing(path) as temporary:
        stored = {name: tensor.detach().to("cpu", dtype) for name, tensor in tensors.items()}
        _refuse_to_write(path, header, {name: Size.of(tensor) for name, tensor in stored.items()})
        write_safetensors(temporary, stored, {_KEY: dump_header(header)})
    return path


def stream_adapter(
    path: Path,
    header: Callable[[], Header],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an adapter as `save_adapter` does, holding one tensor at a time.

    `header` is asked for when all tensors are written, so it may tell of them; `dtype` None is
    float32. Raises OutputExistsError before the first tensor is taken, and AdapterFileError.
    """
    import torch

    from customize.files.tensors import bytes_of, header_bytes

    dtype = dtype or torch.float32
    kind = _DTYPES[str(dtype).removeprefix("torch.")]
    refuse_existing(path, overwrite=overwrite)
    with replacing(path) as temporary, TemporaryFile(dir=path.parent) as data:
        entries, sizes = dict[str, Any](), dict[str, Size]()
        for name, tensor in tensors:
            start, stored = data.tell(), tensor.detach().to("cpu", dtype)
            sizes[name] = Size.of(stored)
            data.write(bytes_of(stored))
            ends = [start, data.tell()]
            entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": ends}
        told = header()
        _refuse_to_write(path, told, sizes)
        data.seek(0)
        with temporary.open("wb") as file:
            file.write(header_bytes(entries, {_KEY: dump_header(told)}))
            shutil.copyfileobj(data, file, 2**20)
    return path


def read_adapter(path: Path) -> AdapterFile:
    """Open an adapter file and check all of it, which reads every number once.

    Raises AdapterFileError for one that is missing, a pickle, damaged, foreign, newer or contrary
    in itself: names, shapes, types, ranks, words and their rows, numbers that are not finite.
    """
    opened = open_safetensors(path)
    if _KEY not in opened.metadata:
        raise unusable(
            path,
            "its safetensors were written by another program (first tensor: "
            f"{min(opened.entries, default='none')!r})",
            "read it with `customize import` first, or name another",
        )
    header = parse_header(path, opened.metadata[_KEY])
    for name, entry in opened.entries.items():
        if entry.dtype not in _DTYPES.values():
            raise unusable(path, f"its tensor {name} holds numbers of the type {entry.dtype}")
    tensors = opened.tensors()
    if found := fault_of(header, {name: Size.of(tensors[name]) for name in tensors}):
        raise unusable(path, found)
    return AdapterFile(header, tensors)


def read_header(path: Path) -> Header:
    """Return the header of an adapter file that is whole; raises as `read_adapter` does."""
    return read_adapter(path).header


def _refuse_to_write(path: Path, header: Header, sizes: Mapping[str, Size]) -> None:
    """Raise AdapterFileError for an adapter that reading would refuse: adding up may overflow."""
    if found := fault_of(header, sizes):
        raise AdapterFileError(
            f"{path} was not written: {found}; expected an adapter that can be read again; "
            "take another precision (float32), smaller weights, or other adapters"
        )
