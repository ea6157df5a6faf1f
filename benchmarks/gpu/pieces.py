"""A folder as files of less than 16 MiB, which a lent machine hands back, and the folder again.

    python benchmarks/gpu/pieces.py join PIECES FOLDER    PIECES holds NAME.tar.00, NAME.tar.01 ...

Joining compares the whole with the sum that was written beside it and replaces nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tarfile
from pathlib import Path

LARGEST = 15 * 2**20


def write_pieces(folder: Path, out: Path, name: str, largest: int = LARGEST) -> list[Path]:
    """Write all files of `folder` to `out` as pieces of one archive; earlier ones are gone.

    The first line of the first piece holds the archive's SHA-256.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.add(path, path.relative_to(folder))
    whole = buffer.getvalue()
    whole = hashlib.sha256(whole).hexdigest().encode() + b"\n" + whole
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{name}.tar.[0-9][0-9]"):
        old.unlink()
    pieces = list[Path]()
    for number, start in enumerate(range(0, len(whole), largest)):
        pieces.append(out / f"{name}.tar.{number:02}")
        pieces[-1].write_bytes(whole[start : start + largest])
    return pieces


def join_pieces(pieces: Path, folder: Path) -> Path:
    """Make the folder that was cut into the pieces in `pieces`; returns it.

    Raises SystemExit, which says what to do, when a piece is missing or the folder is there.
    """
    found = sorted(pieces.glob("*.tar.[0-9][0-9]"))
    names = {path.name[:-7] for path in found}
    if len(names) != 1:
        raise SystemExit(
            f"{pieces}: found {len(found)} pieces of {len(names)} folders; expected those of one, "
            "such as base.tar.00 and base.tar.01; copy them into a folder of their own"
        )
    if folder.exists():
        raise SystemExit(f"{folder} is there already; choose another folder or move it away")
    told, _, whole = b"".join(path.read_bytes() for path in found).partition(b"\n")
    if hashlib.sha256(whole).hexdigest().encode() != told:
        raise SystemExit(
            f"{pieces}: the {len(found)} pieces do not make the whole; expected "
            f"{names.pop()}.tar.00 to the last one, unchanged; fetch them again"
        )
    temporary = folder.with_name(folder.name + ".tmp")
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        archive.extractall(temporary, filter="data")
    os.replace(temporary, folder)
    return folder


def main() -> None:
    """Join pieces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=["join"])
    parser.add_argument("pieces", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(f"joined: {join_pieces(options.pieces, options.folder)}")


if __name__ == "__main__":
    main()
