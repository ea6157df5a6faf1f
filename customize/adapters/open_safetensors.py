"""Open a safetensors file that somebody sends, or say what it is instead: the door of all adapters.

The header is read here, within bounds, before the library sees the file; tensors load when asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.adapters.stored_tensors import StoredTensors
from customize.errors import AdapterFileError
from customize.files.parse import MOST_CONFIG_BYTES, parse_json
from customize.files.text import finding, special_file

if TYPE_CHECKING:
    from torch import Tensor

MOST_TENSORS, LONGEST_NAME, MOST_AXES = 100_000, 500, 8
_DTYPES = frozenset(
    {"BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"}
    | {"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64", "C64"}
)
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
class Entry:
    """What the header says of a tensor: its type, as safetensors spells it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Opened:
    """A safetensors file: its metadata, and its tensors by name as the header lists them."""

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the tensors' shapes."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the tensors, each read when asked for: all need not fit into memory at once."""
        return StoredTensors(self.path, self.shapes)


def open_safetensors(path: Path) -> Opened:
    """Read a file's header; raises AdapterFileError that names what is no safetensors."""
    from safetensors import SafetensorError, safe_open

    _refuse_other_formats(path)
    try:
        header = _header(path)
        content = parse_json(header, MOST_CONFIG_BYTES)
        if not isinstance(content, dict):
            raise ValueError("its header is no object of names")
        metadata = _metadata(content.pop("__metadata__", {}))
        entries = dict(_entries(content))
        ends = [facts["data_offsets"][1] for facts in content.values()]
        _refuse_cut_short(path, 8 + len(header) + max(ends, default=0))
        with safe_open(path, framework="pt"):  # the library's own checks of places and sizes
            return Opened(path, metadata, entries)
    except (SafetensorError, OSError, ValueError) as error:
        raise refused(path, f"a damaged safetensors file ({finding(error)})") from None


def refused(path: Path, found: str, cure: str = "again") -> AdapterFileError:
    """Word the refusal of a file as found, expected, what to do."""
    return AdapterFileError(
        f"{path}: this is {found}; expected the safetensors file of an adapter; "
        f"{_CURES.get(cure, cure)}"
    )


def _refuse_other_formats(path: Path) -> None:
    if not path.exists():
        raise AdapterFileError(
            f"{path}: there is no such file; expected the safetensors file of an adapter; check "
            "the path"
        )
    if not path.is_file():
        raise refused(path, special_file(path) or "a folder", "other")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise refused(path, "empty (0 bytes)")
    for signature, kind, cure in _STARTS:
        if start.startswith(signature) and not _starts_as_safetensors(start):
            raise refused(path, kind, cure)
    if path.suffix in _TORCH_SUFFIXES:
        raise refused(path, "a pickle by its name, which can run any code", "convert")
    if start[8:9] == b"{":
        return
    if start.lstrip()[:1] == b"<":
        raise refused(path, "a web page, perhaps an error or a login", "page")
    if start.isascii() and b"\0" not in start:
        raise refused(path, "a text file", "other")


def _starts_as_safetensors(start: bytes) -> bool:
    """Tell a header's length, 8 bytes that end in zeros, and the JSON after it."""
    return start[6:9] == b"\0\0{"


def _header(path: Path) -> bytes:
    """Read the header's JSON; ValueError for one too long, AdapterFileError for one cut short."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_CONFIG_BYTES:
            raise ValueError(f"its header takes {length} bytes, and {MOST_CONFIG_BYTES} are read")
        _refuse_cut_short(path, 8 + length)
        return file.read(length)


def _metadata(content: Any) -> dict[str, str]:
    if not isinstance(content, dict) or not all(isinstance(t, str) for t in content.values()):
        raise ValueError("its metadata are no texts by name")
    return content


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """Check what the header says of every tensor; raises ValueError."""
    if len(content) > MOST_TENSORS:
        raise ValueError(f"it lists {len(content)} tensors, and {MOST_TENSORS} are read")
    for name, facts in content.items():
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"a tensor is called {name[:80]!r}, which is no name of a layer")
        match facts:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(), int()]}:
                pass
            case _:
                raise ValueError(f"its header does not describe the tensor {name!r}")
        if dtype not in _DTYPES:
            raise ValueError(f"the tensor {name!r} is of the type {dtype[:20]!r}")
        if len(shape) > MOST_AXES or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"the tensor {name!r} has no shape of a tensor")
        yield name, Entry(dtype, tuple(shape))


def _refuse_cut_short(path: Path, whole: int) -> None:
    if (size := path.stat().st_size) < whole:
        raise refused(path, f"a safetensors file cut short ({size} of {whole} bytes)")
