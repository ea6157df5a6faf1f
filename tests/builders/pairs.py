"""Pictures and pairs folders for tests, from a seed; apart from `bases.py` to need no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customize.shapes import Pair


def scene(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Return a smooth picture with four differing quarters, so that crops and flips show."""
    corners_HWC = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners_HWC).resize(size, Image.Resampling.BICUBIC)


def put(path: Path, content: Image.Image | str | bytes | int = 0, **options: Any) -> Path:
    """Write a picture (or the scene of that seed), a text or bytes at `path`, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match content:
        case str():
            path.write_text(content, encoding="utf-8")
        case bytes():
            path.write_bytes(content)
        case int():
            scene(content).save(path, **options)
        case Image.Image():
            content.save(path, **options)
    return path


def put_rows(path: Path, *rows: Mapping[str, object]) -> Path:
    """Write rows as JSON lines."""
    return put(path, "\n".join(json.dumps(row) for row in rows))


def put_pairs(folder: Path, *stems: str, sources: str = "s", targets: str = "t") -> Path:
    """Write pictures `s/STEM.png` and `t/STEM.png`, each different."""
    for number, stem in enumerate(stems):
        put(folder / sources / f"{stem}.png", 2 * number)
        put(folder / targets / f"{stem}.png", 2 * number + 1)
    return folder


def ours(folder: Path, count: int = 3) -> Path:
    """Write a good folder in our own layout."""
    stems = [str(n) for n in range(count)]
    put_pairs(folder, *stems)
    rows = [
        {"source": f"s/{n}.png", "instruction": "make it red", "edited": f"t/{n}.png"}
        for n in stems
    ]
    put_rows(folder / "pairs.jsonl", *rows)
    return folder


def start_end(folder: Path, *roots: str) -> Path:
    """Write `ROOT_start.png`, `ROOT_end.png` and `ROOT.txt`."""
    for number, root in enumerate(roots):
        put(folder / f"{root}_start.png", 2 * number)
        put(folder / f"{root}_end.png", 2 * number + 1)
        put(folder / f"{root}.txt", "make it red")
    return folder


def flymyai(folder: Path, *stems: str) -> Path:
    """Write `images/` with texts, and `control/`."""
    put_pairs(folder, *stems, sources="control", targets="images")
    for stem in stems:
        put(folder / "images" / f"{stem}.txt", "make it red")
    return folder


def numbered(folder: Path, *numbers: str, seeds_json: bool = True) -> Path:
    """Write InstructPix2Pix folders with one seed each."""
    for n, number in enumerate(numbers):
        put(folder / number / "77_0.jpg", 2 * n)
        put(folder / number / "77_1.jpg", 2 * n + 1)
        prompt = {"input": "a dog", "edit": "make it red", "output": "a red dog"}
        put(folder / number / "prompt.json", json.dumps(prompt))
    if seeds_json:
        put(folder / "seeds.json", json.dumps([[number, ["77"]] for number in numbers]))
    return folder


def pair(
    folder: Path,
    source: Image.Image,
    target: Image.Image,
    instruction: str = "make it red",
    **fields: Any,
) -> Pair:
    """Write two pictures and return them as a pair, named by how many there are in `folder`."""
    folder.mkdir(exist_ok=True)
    number = len(list(folder.iterdir())) // 2
    paths = put(folder / f"{number}a.png", source), put(folder / f"{number}b.png", target)
    return Pair(paths[0], instruction, paths[1], place=f"pair {number}", **fields)
