"""In which precision a written model opens where nobody names one."""

from __future__ import annotations

import json
from pathlib import Path

from customize.files import write_text


def open_in_float32(model: Path) -> None:
    """Let every part of a diffusers folder open in float32 unless told otherwise.

    transformers 5 opens a text encoder in the precision that its config names, and diffusers all
    other parts in float32: saved in half precision, such a pipeline fails at its first product.
    """
    for path in sorted(model.glob("*/config.json")):
        config = json.loads(path.read_text("utf-8"))
        if named := {"dtype", "torch_dtype"} & config.keys():
            config |= dict.fromkeys(named, "float32")
            write_text(path, json.dumps(config, indent=2) + "\n")
