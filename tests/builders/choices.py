"""Choices between drawn pictures, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from builders.pairs import scene
from customize.editing.edited_picture import Edited, Settings, Used
from customize.scoring.choices.keep import ChoiceFolder, Made


def made(adapter: str = "", seed: int = 0, picture: Image.Image | None = None) -> Made:
    """Return a finished edit by an adapter of that name, or by the base alone."""
    used = (Used("adapter.safetensors", adapter * 64, 1.0),) if adapter else ()
    settings = Settings(
        "make it red", "embedded", "b" * 64, 4, "Euler", seed, 5.0, 1.5, 32, 32, used
    )
    picture = picture or scene(seed, (32, 32))
    return Made(Edited(picture, settings), f"adapter {adapter}" if adapter else "base alone")


def choose(folder: Path, *wins: tuple[str, str, Any], by: str = "person") -> ChoiceFolder:
    """Keep choices between contestants named by a letter each, empty for the base."""
    choices = ChoiceFolder(folder)
    for seed, (first, second, won) in enumerate(wins):
        source = scene(100 + seed, (32, 32))
        choices.add(
            source, "make it red", made(first, 2 * seed), made(second, 2 * seed + 1), won, by
        )
    return choices
