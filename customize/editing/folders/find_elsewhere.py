"""Pictures that lie elsewhere, such as those of s3://bucket/shots: names of strangers, checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from customize.editing.folders.items import printable
from customize.errors import EditError, Fault
from customize.files.remote import Remote, remote
from customize.pairs.layouts.table_rows import TABLE_SUFFIXES
from customize.pairs.picture_files import CONVERT, FOREIGN_SUFFIXES, PICTURE_SUFFIXES, natural


def pictures_at(what: str, besides: Path | Remote) -> tuple[Remote, list[PurePosixPath | Fault]]:
    """Return the folder that names are relative to, and the names or faults found, in order.

    The order is that of a folder here, so that the same pictures are made together. `besides` is
    never read from. Raises EditError for what cannot be listed.
    """
    place = remote(what)
    try:
        root, names = place.pictures()
    except Exception as error:  # storages raise whatever their libraries do
        raise EditError(
            f"{what}: it cannot be listed ({type(error).__name__}: {error}); expected a folder, a "
            "pattern or a picture; check the address, the network and who you are signed in as"
        ) from None
    alone = names == [place.name]
    if alone and place.suffix.lower() in TABLE_SUFFIXES:
        raise EditError(f"{what}: a table elsewhere; expected one on this machine; copy it here")
    if str(besides) == str(root) and not alone:
        raise same_folder(besides)
    away = f"{besides}/"
    names = [name for name in names if not f"{root}/{name}".startswith(away)]
    return root, list(_checked(sorted(names, key=_order), every=alone or str(root) != str(place)))


def same_folder(folder: Path | Remote) -> EditError:
    """Say that answers would lie among the pictures."""
    return EditError(
        f"output {folder}: it is the folder of the pictures; expected another, so that no source "
        "is replaced; name one with -o"
    )


def _order(name: str) -> list[list[tuple[int, str]]]:
    return [natural(Path(part)) for part in name.split("/")]


def _checked(names: Sequence[str], *, every: bool) -> Iterator[PurePosixPath | Fault]:
    """Yield pictures, or `every` file as one; what no file here could be called is a fault."""
    for name in names:
        parts, suffix = name.split("/"), PurePosixPath(name).suffix.lower()
        here = printable(name)
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name or "\\" in name:
            yield Fault(here, "a name that no file here may have", "rename it")
        elif every:
            yield PurePosixPath(name)
        elif any(part.startswith(".") for part in parts):
            continue
        elif suffix in FOREIGN_SUFFIXES:
            yield Fault(here, f"{suffix} files cannot be read", CONVERT)
        elif suffix in PICTURE_SUFFIXES:
            yield PurePosixPath(name)
