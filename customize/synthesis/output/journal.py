"""A file of finished pieces, one JSON line each: a run that was killed goes on after the last one.

A line counts once it ends in a newline; what a kill left half-written is cut off when it is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from customize.errors import SynthesisError
from customize.files import make_folder
from customize.files.disk import naming_disk


class Journal:
    """Lines by number: line n is piece n."""

    def __init__(self, path: Path) -> None:
        """Open or begin the file; raises SynthesisError where it is no such journal."""
        self.path = path
        make_folder(path.parent)
        whole = path.read_bytes() if path.exists() else b""
        end = whole.rfind(b"\n") + 1
        try:
            self.pieces: list[Mapping[str, Any]] = [
                json.loads(line) for line in whole[:end].splitlines()
            ]
        except ValueError:
            self.pieces = [{}]
        if any(
            not isinstance(piece, dict) or piece.get("piece") != n
            for n, piece in enumerate(self.pieces)
        ):
            raise SynthesisError(
                f"{path}: this is no journal of `customize synthesize`, or a damaged one; expected "
                "numbered JSON lines; name another output, or start over with --overwrite"
            )
        if end < len(whole):
            with path.open("r+b") as file:
                file.truncate(end)

    def append(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the next piece: it is on the disk when this returns."""
        piece = {"piece": len(self.pieces), **content}
        with naming_disk(self.path), self.path.open("ab") as file:
            file.write(json.dumps(piece, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.pieces.append(piece)
        return piece
