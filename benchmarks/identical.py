"""Hash everything that seeded runs write at toy size: moving code must leave each line as it was.

    PYTHONPATH=. python benchmarks/identical.py > before.txt; ...; diff before.txt after.txt

Trains each method on both families, merges by every method, exports for every target, edits; dates
and the working folder are left out of what is hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path.cwd() / "tests"))

import numpy as np
import torch
import yaml
from builders.bases import toy_base, toy_xl_base
from builders.pairs import scene
from builders.runs import toy_pairs
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from customize.cli.main import main

WORK = Path(tempfile.gettempdir()) / "customize_identical"
METHODS: dict[str, dict[str, Any]] = {
    "kv": {"method": "cross_attention_kv"},
    "lora": {"method": "low_rank", "rank": 2, "targets": ["attention", "convolutions"]},
    "dora": {"method": "low_rank", "decompose": True, "rank": 2, "text_encoder": True},
}
MERGES = (
    *("linear", "concat", "ties", "dare", "svd --rank 2"),
    *("constrained", "regression", "distill --steps 3", "auto"),
)


def run(*arguments: object) -> None:
    """Run a command; what it prints is hashed as well."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*map(str, arguments)])
    text = neutral(" ".join(printed.getvalue().split()))
    with (WORK.parent / "customize_identical.log").open("a") as log:
        log.write(f"{arguments}\n{text}\n")
    name = " ".join(str(a) for a in arguments)
    print(f"{digest(text.encode())}  exit {code}  {neutral(name)}", flush=True)


def neutral(text: str) -> str:
    """Strike out the working folder, dates, seconds and versions."""
    text = text.replace(str(WORK), "WORK")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]?[\d:.+Z-]*", "TIME", text)
    return re.sub(r"\d+(\.\d+)? ?(s|seconds|min|GB GPU|GB)\b", "SPENT", text)


def digest(content: bytes) -> str:
    """Return a short sha256."""
    return hashlib.sha256(content).hexdigest()[:16]


def digest_of(path: Path) -> str:
    """Hash a file by what it holds."""
    content = path.read_bytes()
    match path.suffix:
        case ".safetensors":
            size = struct.unpack("<Q", content[:8])[0]
            header = json.loads(content[8 : 8 + size])
            told = json.dumps(header.pop("__metadata__", {}), sort_keys=True)
            return digest(
                json.dumps(header, sort_keys=True).encode() + content[8 + size :]
            ) + digest(neutral(told).encode())
        case ".png":
            with Image.open(path) as picture:
                told = json.dumps(picture.info, sort_keys=True, default=str)
                return digest(np.asarray(picture).tobytes()) + digest(neutral(told).encode())
        case ".json" | ".md" | ".txt" | ".html" | ".yaml" | ".jsonl":
            return digest(neutral(content.decode()).encode())
        case _:
            return digest(content)


def trace(folder: Path) -> str:
    """Hash the losses of all steps as TensorBoard keeps them."""
    board = EventAccumulator(str(folder))
    board.Reload()
    tags = board.Tags()["scalars"]
    rows = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in sorted(tags)}
    assert rows["loss"], folder
    return digest(json.dumps(rows).encode())


def prepare() -> None:
    """Draw bases, pairs and a picture into an empty `WORK`."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    toy_base(WORK / "sd")
    toy_xl_base(WORK / "xl")
    own = {
        "edit": {"steps": 2, "text_guidance": 2.0, "image_guidance": 1.2},
        "instructions": ["make it red", "paint it blue", "add the hat"],
    }
    for base in ("sd", "xl"):
        (WORK / base / "customize.json").write_text(json.dumps(own))
    for name, seed in (("dog", 0), ("dog_unseen", 50), ("look", 90), ("look_unseen", 150)):
        text = "add <my-dog>" if name.startswith("dog") else "make it night"
        toy_pairs(WORK / name, first_seed=seed, text=text)
    scene(7, (32, 32)).save(WORK / "picture.png")


def train(base: str, name: str) -> None:
    """Check and train one method; K/V on SD 1.5 learns a look without a word."""
    word = {} if (base, name) == ("sd", "kv") else {"word": "<my-dog>", "initializer": "dog"}
    pairs = "dog" if word else "look"
    preview = {"every": 3 if name == "kv" else None, "steps": 2, "count": 2}
    recipe = {
        "base": {"name": str(WORK / base)},
        "concepts": [{"name": pairs, "pairs": str(WORK / pairs), **word}],
        "adapter": METHODS[name],
        "train": {"steps": 6, "batch": 2, "learning_rate": 1e-2, "precision": "no"},
        "preservation": {"share": 0.3},
        "preview": {**preview, "images": str(WORK / f"{pairs}_unseen")},
        "output": str(WORK / f"{base}_{name}"),
    }
    path = WORK / f"{base}_{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    run("check", path, "-o", WORK / f"{base}_{name}_pairs.png")
    run("train", path)
    print(f"{trace(WORK / f'{base}_{name}' / 'logs')}  losses {base}_{name}", flush=True)


def merge(base: str, way: str) -> None:
    """Merge the two kinds of adapter; ties and regression report as well."""
    files = [WORK / f"{base}_{name}" / "adapter.safetensors" for name in ("kv", "lora")]
    kind = way.split()[0]
    options: list[object] = []
    if kind in ("regression", "distill", "auto"):
        options = ["--device", "cpu"]
    if kind in ("regression", "ties") and base == "sd":
        options = ["--device", "cpu", "--report", WORK / f"report_{kind}"]
    output = WORK / f"{base}_{kind}.safetensors"
    run("merge", *files, "-o", output, "--method", *way.split(), *options)


def export_and_edit() -> None:
    """Export every target, cut one, read it back, and edit."""
    for base, name in (("sd", "kv"), ("sd", "lora"), ("sd", "dora"), ("xl", "kv"), ("xl", "lora")):
        file = WORK / f"{base}_{name}" / "adapter.safetensors"
        run("export", file, "--to", "all", "-o", WORK / f"out_{base}_{name}", "--no-verify")
    file = WORK / "sd_lora" / "adapter.safetensors"
    run("export", file, "--to", "kohya", "-o", WORK / "out_cut", "--rank", "1")
    kohya = next((WORK / "out_cut").glob("*.safetensors"))
    run("inspect", kohya)
    run("import", kohya, "-o", WORK / "back.safetensors", "--base", WORK / "sd")
    run("inspect", file)
    picture, settings = WORK / "picture.png", ("--device", "cpu", "--seed", 3)
    run("edit", picture, "add <my-dog>", "-a", file, "-o", WORK / "edit_sd.png", *settings)
    file = WORK / "xl_dora" / "adapter.safetensors"
    run("edit", picture, "make it red", "-a", file, "-o", WORK / "edit_xl.png", *settings)


def everything() -> None:
    """Do all of it in `WORK` and print a line a file."""
    torch.set_num_threads(1)
    for clock in ("perf_counter", "monotonic"):
        # Seconds stand in headers, headers are hashed into merges, and the hash seeds `dare`.
        setattr(time, clock, lambda: 0.0)
    prepare()
    for base in ("sd", "xl"):
        for name in METHODS:
            train(base, name)
    for base, ways in (("sd", MERGES), ("xl", ("constrained", "ties", "regression"))):
        for way in ways:
            merge(base, way)
    export_and_edit()
    for path in sorted(WORK.rglob("*")):
        if path.is_file() and "logs" not in path.parts:
            print(f"{digest_of(path)}  {path.relative_to(WORK)}")


if __name__ == "__main__":
    everything()
