"""Cut bitsandbytes' wheel down to the libraries for a CPU and one CUDA: `slim_wheel.py WHEEL`."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path

DROPPED = re.compile(r"bitsandbytes/libbitsandbytes_(?!cpu|cuda130)\w+\.so")


def slim(wheel: Path) -> int:
    """Rewrite the wheel without the other libraries and their lines in RECORD; returns its size.

    Raises SystemExit where the library that is wanted isn't in it.
    """
    temporary = wheel.with_suffix(".tmp")
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        if not any("cuda130" in name for name in old.namelist()):
            raise SystemExit(
                f"{wheel.name} has no library for CUDA 13.0; expected "
                "libbitsandbytes_cuda130.so; correct slim_wheel.py for this version"
            )
        for entry in old.infolist():
            if DROPPED.fullmatch(entry.filename):
                continue
            content = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                kept = (line for line in lines if not DROPPED.fullmatch(line.split(",")[0]))
                content = "".join(kept).encode()
            new.writestr(entry, content, zipfile.ZIP_DEFLATED)
    os.replace(temporary, wheel)
    return wheel.stat().st_size


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {slim(Path(name)) / 2**20:.1f} MiB")
