"""Where a model comes from and under which licence, as its own folder says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MOST = 200_000
"""Letters of a model card that are looked at."""


def licence_of(folder: Path) -> str:
    """Return the licence in the head of the folder's model card, `unknown` where there is none."""
    try:
        text = (folder / "README.md").read_text("utf-8", errors="replace")[:MOST]
    except OSError:
        return "unknown"
    if not text.startswith("---"):
        return "unknown"
    try:
        head: Any = yaml.safe_load(text[3:].split("\n---", 1)[0])
    except (yaml.YAMLError, RecursionError, ValueError):
        return "unknown"
    licence = head.get("license") if isinstance(head, dict) else None
    return licence[:80] if isinstance(licence, str) else "unknown"
