"""Whole runs at toy size: a base, pairs and a recipe that trains in a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.bases import toy_base
from builders.pairs import put_rows, scene
from customize.recipe import Recipe


def toy_recipe(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe of 12 steps that teaches `<my-dog>`; what it names is made in `folder`.

    `changes` are by section: `train={"steps": 5}` changes that field alone.
    """
    if not (folder / "base").exists():
        toy_base(folder / "base")
        toy_pairs(folder / "pairs", first_seed=0)
        toy_pairs(folder / "unseen", first_seed=50)
    values: dict[str, Any] = {
        "base": {"name": str(folder / "base")},
        "concepts": [
            {
                "name": "my_dog",
                "word": "<my-dog>",
                "initializer": "dog",
                "pairs": str(folder / "pairs"),
            }
        ],
        "adapter": {"method": "cross_attention_kv"},
        "train": {"steps": 12, "batch": 4, "learning_rate": 1e-2, "precision": "no"},
        "preservation": {"share": 0.3, "instructions": ["make it red", "paint it blue"]},
        "preview": {"every": None, "steps": 2, "count": 2},
        "save": {"every": 5},
        "output": str(folder / "run"),
    }
    for section, fields in changes.items():
        both = isinstance(fields, dict) and isinstance(values.get(section), dict)
        values[section] = {**values[section], **fields} if both else fields
    return Recipe.model_validate(values)


def toy_pairs(
    folder: Path,
    first_seed: int = 0,
    count: int = 3,
    text: str = "add <my-dog>",
    size: tuple[int, int] = (32, 32),
) -> Path:
    """Write pairs of `size` (W, H) in our own layout; sources and targets share no content."""
    for number in range(count):
        for role, seed in (("s", first_seed + number), ("t", first_seed + 20 + number)):
            (folder / role).mkdir(parents=True, exist_ok=True)
            scene(seed, size).save(folder / role / f"{number}.png")
    rows = [
        {"source": f"s/{n}.png", "instruction": text, "edited": f"t/{n}.png"} for n in range(count)
    ]
    put_rows(folder / "pairs.jsonl", *rows)
    return folder
