"""Short names for adapter files, for tables, pictures and headers: no paths, and none twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from customize.files.spelling import resolved


def label_of(path: Path) -> str:
    """Name an adapter by its file, or by its folder where the file is called as every run's.

    >>> label_of(Path("runs/my_dog/adapter.safetensors")), label_of(Path("shared/dog.safetensors"))
    ('my_dog', 'dog')
    """
    return resolved(path).parent.name if path.stem == "adapter" else path.stem


def labels_of(paths: Iterable[Path]) -> list[str]:
    """Name several adapters, those of one name by numbers too."""
    return numbered(map(label_of, paths))


def numbered(labels: Iterable[str]) -> list[str]:
    """Number labels that would be the same.

    >>> numbered(["dog", "cat", "dog"])
    ['dog', 'cat', 'dog (2)']
    """
    seen: dict[str, int] = {}
    found = list[str]()
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found
