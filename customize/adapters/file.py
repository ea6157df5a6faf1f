"""The adapter file users keep and share: named tensors under a versioned header.

The header is JSON under the metadata key `customize`, so that it reads in milliseconds whatever the
file's size. Tensor names are explained in `customize.adapters`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from customize.adapters.header import Header, dump_header, parse_header, unusable
from customize.errors import AdapterFileError
from customize.files import refuse_existing, replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from customize.families.base import Base

_KEY = "customize"
_LAYER = r"(?:denoiser|text_encoder(?:_\d)?)\..+\.(?:delta|lora_A|lora_B|magnitude)"
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_NAME = re.compile(rf"{_LAYER}|words\.text_encoder(?:_\d)?\..+")


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

    Raises OutputExistsError when `path` is there already and may not be replaced.
    """
    from safetensors.torch import save_file

    odd = [name for name in tensors if not _NAME.fullmatch(name)]
    assert tensors, "an adapter without tensors"
    assert not odd, odd
    refuse_existing(path, overwrite=overwrite)
    with replacing(path) as temporary:
        save_file(
            {
                name: tensor.detach().to("cpu", dtype).contiguous()
                for name, tensor in tensors.items()
            },
            temporary,
            metadata={_KEY: dump_header(header)},
        )
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
    float32. Raises OutputExistsError before the first tensor is taken.
    """
    import torch

    dtype = dtype or torch.float32
    kind = _DTYPES[str(dtype).removeprefix("torch.")]
    refuse_existing(path, overwrite=overwrite)
    with replacing(path) as temporary, TemporaryFile(dir=path.parent) as data:
        entries: dict[str, Any] = {}
        for name, tensor in tensors:
            assert _NAME.fullmatch(name), name
            start = data.tell()
            flat = tensor.detach().to("cpu", dtype).contiguous().flatten().view(torch.uint8)
            data.write(flat.numpy().data)
            ends = [start, data.tell()]
            entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": ends}
        assert entries, "an adapter without tensors"
        entries["__metadata__"] = {_KEY: dump_header(header())}
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)  # the format wants tensors to start at multiples of 8
        data.seek(0)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(data, file, 2**20)
    return path


def read_adapter(path: Path) -> AdapterFile:
    """Open an adapter file.

    Raises AdapterFileError for one that is missing, a pickle, damaged, foreign or newer.
    """
    header = read_header(path)
    tensors = _MappedTensors(path)
    odd = [name for name in tensors if not _NAME.fullmatch(name)]
    if odd:
        raise unusable(path, f"it holds a tensor named {odd[0]!r}", "save the adapter again")
    return AdapterFile(header, tensors)


def read_header(path: Path) -> Header:
    """Read an adapter file's header alone, in milliseconds; raises as `read_adapter` does."""
    _refuse_pickles(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
    except (SafetensorError, OSError) as error:
        raise unusable(
            path, f"it is damaged or cut short ({error})", "copy or download it again"
        ) from None
    if _KEY not in metadata:
        raise unusable(
            path,
            "its safetensors were written by another program (first tensor: "
            f"{min(names, default='none')!r})",
            "read it with `customize import` first, or name another",
        )
    return parse_header(path, metadata[_KEY])


def other_base(header: Header, base: Base) -> str | None:
    """Say how `base` is not the one the adapter was made for, None when it is.

    Raises AdapterFileError for a base of another family, which can never serve.
    """
    if header.family != base.family:
        raise AdapterFileError(
            f"the adapter was made for a base of the family {header.family!r} "
            f"({header.base_name}), and {base.name!r} is {base.family!r}; expected one family; "
            "choose the other base or another adapter"
        )
    if header.base_fingerprint == base.fingerprint:
        return None
    return (
        f"the adapter was made for {header.base_name!r} with weights "
        f"{header.base_fingerprint[:12]}, and {base.name!r} has weights {base.fingerprint[:12]}: "
        "it may do less, or something else"
    )


class _MappedTensors(Mapping[str, "Tensor"]):
    """Tensors of a safetensors file, each read when asked for: all need not fit at once."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, framework="pt")
        self._names = dict.fromkeys(sorted(self._file.keys()))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _refuse_pickles(path: Path) -> None:
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise unusable(path, found, "check the path")
    with path.open("rb") as file:
        start = file.read(4)
    # Torch's older files start as a pickle of protocol 2 or later, its newer ones are a zip.
    is_pickle = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[2:4] != b"\0\0"
    if is_pickle or start == b"PK\x03\x04" or path.suffix in {".bin", ".pt", ".ckpt", ".pth"}:
        raise unusable(
            path,
            "it is a pickle, which can run any code when it is opened",
            "ask its maker for safetensors",
        )
