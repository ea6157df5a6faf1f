"""How far an edit moved what it left alone: models that edit shift pictures or grow a border."""

from __future__ import annotations

from PIL import Image

from customize.pairs.lint.misaligned import alignment_of
from customize.scoring.items import Answer


def shift(output: Image.Image, source: Image.Image) -> Answer:
    """Root mean square movement, in pixels of the source, by shift, scale and turn together."""
    found = alignment_of(source, output)
    if found is None:
        return "pictures too small or of unlike shapes have none"
    if not found.certain:
        return "too little of the source is left to tell"
    return found.distance(source.size)
