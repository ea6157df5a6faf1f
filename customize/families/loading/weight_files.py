"""The weight files of a base: which count, whether they are sound, one fingerprint over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from customize.errors import BaseModelError
from customize.files.disk import disk_of, free_at, is_full
from customize.files.text import special_file

_WHOLE = 64 * 2**20
_BLOCK = 2**18
_BLOCKS = 64


def component_files(folder: Path, owner: str) -> tuple[list[Path], str | None]:
    """List the safetensors files of one component and the variant they are (None or `fp16`).

    Raises BaseModelError, in the name of `owner`, where there are none or one of them is damaged.
    """
    everything = sorted(folder.glob("*.safetensors"))
    plain = [path for path in everything if _variant(path) is None and "non_ema" not in path.name]
    files = plain or [path for path in everything if _variant(path) == "fp16"]
    if not files:
        pickles = sorted({*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")})
        found = f"only {pickles[0].name}, a pickle, which can run code" if pickles else "no weights"
        raise BaseModelError(
            f"{owner}: {folder} holds {found}; expected safetensors",
            "take the model's safetensors version or convert it with "
            "`save_pretrained(..., safe_serialization=True)`",
        )
    for path in files:
        check_safetensors(path, owner)
    return files, None if plain else "fp16"


def check_safetensors(path: Path, owner: str) -> dict[str, tuple[int, ...]]:
    """Return every tensor's shape by name; raises BaseModelError for a damaged file."""
    if kind := special_file(path):
        raise BaseModelError(
            f"{owner}: {path} is {kind}; expected a safetensors file", "put the model's file there"
        )
    try:
        with safe_open(path, framework="numpy") as file:  # shapes only: no torch
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise BaseModelError(
            f"{owner}: {path} cannot be read as safetensors ({error}); expected a whole file",
            "download it again",
        ) from None


def metadata_of(path: Path) -> Mapping[str, str]:
    """Return what a safetensors file says of itself."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def room_for(size: int, folder: Path, owner: str) -> None:
    """Raise BaseModelError, in the name of `owner`, where `folder` lacks room for `size` bytes."""
    if (free := free_at(folder)) < size:
        raise _full(owner, folder, f"{free / 1e9:.1f} GB free where {size / 1e9:.1f} GB are needed")


@contextmanager
def written(owner: str, folder: Path) -> Iterator[None]:
    """Turn a disk that runs full while something is written to `folder` into a BaseModelError."""
    try:
        yield
    except Exception as error:  # each library that writes has an error class of its own
        if is_full(error, folder):
            raise _full(owner, folder, "run full") from None
        raise


def _full(owner: str, folder: Path, found: str) -> BaseModelError:
    return BaseModelError(
        f"{owner}: the disk of {disk_of(folder)} has {found}, {folder} is on it; expected room for "
        "the model",
        "free some, or choose another disk by the environment variable CUSTOMIZE_CACHE "
        "(converted files) or HF_HOME (downloads)",
    )


def fingerprint(files: Sequence[Path], root: Path) -> str:
    """Hash the weight files into 64 hex digits, the same on every machine and in every folder.

    Files above 64 MiB count by size, header and 64 blocks spread evenly: a fraction of a second for
    gigabytes, and any retrained or converted weights differ everywhere.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                digest.update(file.read())
                continue
            header = int.from_bytes(file.read(8), "little")
            digest.update(file.read(header))
            for index in range(_BLOCKS):
                file.seek(8 + header + (size - 8 - header - _BLOCK) * index // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _variant(path: Path) -> str | None:
    """Read `fp16` out of `model.fp16.safetensors` and `model.fp16-00001-of-00002.safetensors`."""
    parts = path.name.removesuffix(".safetensors").split(".")
    return parts[1].split("-")[0] if len(parts) > 1 else None
