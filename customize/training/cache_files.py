"""Tensors in a file that tells by itself whether it is whole; written under another name first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from customize.files import replacing


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Return a file's tensors, or None where it is missing or not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            written = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return tensors if tensors and written == _digest(tensors) else None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write CPU tensors with a checksum; a process killed here leaves `path` as it was."""
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"sha256": _digest(tensors)})


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process was writing in `folder`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
