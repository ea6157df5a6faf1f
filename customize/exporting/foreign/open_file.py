"""Open a file somebody sends as safetensors, or say what it is instead."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.errors import AdapterFileError

if TYPE_CHECKING:
    from torch import Tensor

# How files begin that are no safetensors, and what they are.
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a pickle in a zip (torch's own format), which can run any code", "convert"),
    (b"\x80\x02", "a pickle, which can run any code when it is opened", "convert"),
    (b"\x80\x03", "a pickle, which can run any code when it is opened", "convert"),
    (b"\x80\x04", "a pickle, which can run any code when it is opened", "convert"),
    (b"\x80\x05", "a pickle, which can run any code when it is opened", "convert"),
    (b"version https://git-lfs", "a pointer of git LFS, not the file itself", "lfs"),
    (b"GGUF", "a GGUF model", "other"),
    (b"\x89PNG", "a PNG picture", "other"),
    (b"\xff\xd8\xff", "a JPEG picture", "other"),
    (b"\x1f\x8b", "a gzip archive", "other"),
    (b"Rar!", "a RAR archive", "other"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "other"),
)
_CURES: Mapping[str, str] = {
    "convert": "ask its maker for safetensors",
    "lfs": "fetch it with `git lfs pull`, or download it again",
    "page": "download it again, logged in where the site asks for it",
    "again": "download or copy it again",
    "other": "name another file",
}
_TORCH_SUFFIXES = {".bin", ".pt", ".ckpt", ".pth"}


@dataclass(frozen=True)
class Opened:
    """A safetensors file: its metadata and the shapes of its tensors; tensors load when asked."""

    path: Path
    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    def tensors(self) -> dict[str, Tensor]:
        """Read every tensor."""
        from safetensors.torch import load_file

        return load_file(self.path)

    def outlines(self) -> dict[str, Tensor]:
        """Return tensors without content; those of one number, such as alpha, are read."""
        import torch
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            return {
                name: torch.empty(shape, device="meta")
                if math.prod(shape) > 1
                else file.get_tensor(name)
                for name, shape in self.shapes.items()
            }


def open_file(path: Path) -> Opened:
    """Read a file's header; raises AdapterFileError that names what is no safetensors."""
    from safetensors import SafetensorError, safe_open

    _refuse_other_formats(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            return Opened(path, file.metadata() or {}, shapes)
    except (SafetensorError, OSError, ValueError) as error:
        whole = _whole_size(path)
        size = path.stat().st_size
        if whole is not None and size < whole:
            raise _refuse(path, f"a safetensors file cut short ({size} of {whole} bytes)") from None
        raise _refuse(path, f"a damaged safetensors file ({error})") from None


def _refuse_other_formats(path: Path) -> None:
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file: there is none of that name"
        raise _refuse(path, kind, "other")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise _refuse(path, "empty (0 bytes)")
    for signature, kind, cure in _STARTS:
        if start.startswith(signature) and not _starts_as_safetensors(start):
            raise _refuse(path, kind, cure)
    if path.suffix in _TORCH_SUFFIXES:
        raise _refuse(path, "a pickle by its name, which can run any code", "convert")
    if start[8:9] == b"{":
        return
    if start.lstrip()[:1] == b"<":
        raise _refuse(path, "a web page, perhaps an error or a login", "page")
    if start.isascii() and b"\0" not in start:
        raise _refuse(path, "a text file", "other")


def _starts_as_safetensors(start: bytes) -> bool:
    """Tell a header's length, 8 bytes that end in zeros, and the JSON after it."""
    return start[6:9] == b"\0\0{"


def _whole_size(path: Path) -> int | None:
    """Return the size that a safetensors header promises, None where it cannot be read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:
            return None
        header = file.read(length)
    if len(header) < length:
        return 8 + length
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        return 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _refuse(path: Path, found: str, cure: str = "again") -> AdapterFileError:
    return AdapterFileError(
        f"{path}: this is {found}; expected the safetensors file of an adapter; {_CURES[cure]}"
    )
