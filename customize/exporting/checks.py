"""Refuse options that cannot be, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from customize.errors import ExportError

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.exporting import Options
    from customize.families.base import Base


def check(adapter: AdapterFile, base: Base, options: Options) -> None:
    """Raise for a base of another family, a name that is a path, and numbers that cannot be."""
    from customize.adapters.file import other_base

    other_base(adapter.header, base)
    broken = [name for name, t in adapter.tensors.items() if not t.isfinite().all()]
    if broken:
        raise ExportError(
            f"the adapter holds numbers that are not finite in {broken[0]}; expected a whole "
            "adapter; train it again from an earlier checkpoint, or take another file"
        )
    if options.name is not None:
        _check_name(options.name)
    if options.size_mb is not None and (options.energy, options.error) != (None, None):
        raise ExportError(
            "--size-mb chooses the energy itself, and --energy or --error was given too; expected "
            "one of them; leave the other out"
        )
    for name, value, highest in (
        ("rank", options.rank, None),
        ("energy", options.energy, 1),
        ("error", options.error, 1),
        ("size-mb", options.size_mb, None),
    ):
        if value is not None and not 0 < value <= (highest or float("inf")):  # nan is none of these
            limit = f"above 0 and at most {highest}" if highest else "above 0"
            raise ExportError(f"--{name} {value:g}: expected a number {limit}; give such a one")


def _check_name(name: str) -> None:
    """Refuse what is no plain name of a file, and the name of the words' folder."""
    found = (
        "it is a path"
        if "/" in name or "\\" in name
        else "names that start with a dot are hidden"
        if name.startswith(".")
        else "the words' folder is called so"
        if name == "embeddings"
        else None
    )
    if found:
        raise ExportError(
            f"--name {name}: {found}; expected the files' name alone, such as my_dog; say where "
            "they go with --output"
        )
