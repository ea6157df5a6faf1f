"""What commands read, as the rule for outputs wants it told."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from customize.files import Used


def used_adapters(paths: Iterable[Path]) -> list[Used]:
    """List adapters, in whose folders a command may write."""
    return [Used(f"the adapter {path}", path, shared=True) for path in paths]


def used_bases(names: Iterable[str | None]) -> list[Used]:
    """List the bases that are folders or files here."""
    found = [Path(name) for name in names if name and os.path.exists(name)]
    return [Used(f"the base {path}", path) for path in found]
