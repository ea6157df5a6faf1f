"""Tensors in a file that tells by itself whether it is whole, and whether it is the one meant.

A flipped byte, another shape or type, other facts, or a file under a name that is not its own: the
checksum over all of it says so before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from customize.files.write import replacing

_SUM, _FACTS = "sha256", "facts"
_TYPES: Mapping[torch.dtype, str] = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_TYPES)}
_KINDS = {name: dtype for dtype, name in _TYPES.items()}


class DamagedError(Exception):
    """A file is not what was written under this key; the caller knows what to do about it."""


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any] | None = None,
    *,
    key: str = "",
    flush: bool = False,
) -> None:
    """Write CPU tensors and facts (JSON) whole or not at all, bound to `key`."""
    text = json.dumps(facts or {})
    with replacing(path, flush=flush) as temporary:
        metadata = {_SUM: _digest(tensors, text, key), _FACTS: text}
        write_safetensors(temporary, tensors, metadata)


def read_tensors(path: Path, *, key: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and facts back; raises DamagedError unless they are what was written for `key`.

    Raises FileNotFoundError where there is no file.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        tensors, metadata = _read(path)
        text = metadata[_FACTS]
        if metadata[_SUM] != _digest(tensors, text, key):
            raise DamagedError("its checksum does not fit what it holds")
        return tensors, json.loads(text)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file by one look at it.

    safetensors' reader opens a file by its name twice: replaced meanwhile, it is half of two.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        begin = 8 + int.from_bytes(data[:8], "little")
        about = json.loads(data[8:begin])
        metadata = about.pop("__metadata__")
        return {name: _tensor(data, begin, **one) for name, one in about.items()}, metadata


def _tensor(
    data: mmap.mmap, begin: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> Tensor:
    """Copy one tensor out of a file's bytes; raises ValueError where they are not of its shape."""
    start, end = data_offsets
    kind = _KINDS[dtype]
    if (
        not 0 <= start <= end <= len(data) - begin
        or math.prod(shape) * kind.itemsize != end - start
    ):
        raise ValueError("a tensor that is not where the header says")
    if start == end:
        return torch.zeros(shape, dtype=kind)
    return torch.frombuffer(bytearray(data[begin + start : begin + end]), dtype=kind).view(shape)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file: the same bytes for the same content, as readable as the umask says.

    safetensors' own writer puts metadata in a new order each time, and a file that its owner alone
    may read. Tensors go by their type, in the order above, then by name, as there.
    """
    order = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name))
    about, end = dict[str, Any](), 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        kind, shape = _TYPES[tensors[name].dtype], list(tensors[name].shape)
        about[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    with path.open("wb") as file:
        file.write(header_bytes(about, metadata or {}))
        for name in order:
            file.write(bytes_of(tensors[name]))


def header_bytes(about: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return what a safetensors file begins with: the header's length and its JSON."""
    first = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    text = json.dumps({**first, **about}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format wants tensors to start at multiples of 8
    return len(text).to_bytes(8, "little") + text


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes; a tensor on the CPU that lies in one piece is not copied."""
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return flat.numpy().data


def _digest(tensors: Mapping[str, Tensor], facts: str, key: str) -> str:
    digest = hashlib.sha256(json.dumps([key, facts]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
