"""What the libraries write into saved models' configs about the machine, struck out again."""

from __future__ import annotations

import json
from pathlib import Path

_PLACE = "_name_or_path"
"""Where diffusers and transformers note what a model was opened from: often a private folder."""


def forget_places(folder: Path) -> None:
    """Strike from every config in `folder` and below where the model was opened from."""
    for path in sorted(folder.rglob("*.json")):
        text = path.read_text("utf-8")
        if f'"{_PLACE}"' not in text:
            continue
        content = json.loads(text)
        if isinstance(content, dict) and content.pop(_PLACE, None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
