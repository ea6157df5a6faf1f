"""Run real front ends' loaders, from their own source, on files that we export at true sizes.

    python benchmarks/frontends.py comfyui=DIR kohya=DIR invokeai=DIR forge=DIR diffusers=PYTHON

Each DIR is a checkout of the front end; PYTHON has one version of diffusers and may be given more
than once: the oldest and the newest that pyproject allows read every export there is. Prints the
tables of docs/frontends.md and writes them to results/frontends.json, where front ends not named
keep their last outcome. Nothing of a front end is copied here; nothing is fetched.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers_cases import diffusers_cases
from frontend_models import text_model, unet
from torch import nn

from customize.adapters.file import AdapterFile, save_adapter
from customize.adapters.header import Header, Taught
from customize.drawing.table import table
from customize.exporting import export
from customize.exporting.targets import ExportOptions, Target
from customize.families.base import Base, FamilyName

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "frontends.json"
FAMILIES: dict[str, FamilyName] = {"sd1": "instruct_pix2pix", "xl": "instruct_pix2pix_xl"}
RANK = 2
CASES: tuple[tuple[str, str, str, Target], ...] = (
    ("LoRA, all targets and text, SD 1.5", "sd1", "taught", "kohya"),
    ("LoRA of every layer, SD 1.5", "sd1", "every", "kohya"),
    ("K/V with a word, low rank, SD 1.5", "sd1", "kv", "kohya"),
    ("K/V with a word, .diff, SD 1.5", "sd1", "full", "comfyui"),
    ("K/V with a word, bundled, SD 1.5", "sd1", "kv", "a1111"),
    ("LoRA, all targets and text, SDXL", "xl", "taught", "kohya"),
    ("LoRA of every layer, SDXL", "xl", "every", "kohya"),
)
# What `targets` and the text encoder's rank can name, of the layers there are.
TAUGHT = re.compile(
    r"denoiser\..*\.(to_[qkv]|to_out\.0|proj_(in|out)|conv1|conv2|conv_shortcut|conv"
    r"|ff\.net\.(0\.proj|2))|text_encoder(_2)?\..*\.self_attn\..*"
)


def weighted(size: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield linear and convolution layers with their shapes, by their names in adapter files."""
    models: dict[str, Any] = {"denoiser": unet(size), "text_encoder": text_model("text_encoder")}
    if size == "xl":
        models["text_encoder_2"] = text_model("text_encoder_2")
    for model, network in models.items():
        for path, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and path != "text_projection":
                yield f"{model}.{path.removeprefix('text_model.')}", tuple(module.weight.shape)


def adapter_of(size: str, kind: str) -> tuple[AdapterFile, dict[str, tuple[int, ...]]]:
    """Make an adapter with known changes, and the shapes of what it changes.

    `every` is a LoRA of every layer at alpha 3, `taught` of those that recipes can name; `kv` full
    changes of rank 2 of cross-attention's keys and values, with a word; `full` the same at full
    rank, in four layers.
    """
    generator = torch.Generator().manual_seed(0)
    shapes, tensors = dict(weighted(size)), dict[str, torch.Tensor]()
    is_low_rank = kind in ("taught", "every")
    if kind == "taught":
        shapes = {layer: shape for layer, shape in shapes.items() if TAUGHT.fullmatch(layer)}
    elif not is_low_rank:
        keys = [layer for layer in shapes if layer.endswith(("attn2.to_k", "attn2.to_v"))]
        shapes = {layer: shapes[layer] for layer in (keys if kind == "kv" else keys[:4])}
    for layer, (out, width, *kernel) in shapes.items():
        down = torch.randn(RANK, width, *kernel, generator=generator) / width**0.5
        up = 0.01 * torch.randn(out, RANK, *[1] * len(kernel), generator=generator)
        if is_low_rank:
            tensors |= {f"{layer}.lora_A": down, f"{layer}.lora_B": up}
        else:
            full = torch.randn(out, width, generator=generator) / width
            tensors[f"{layer}.delta"] = full if kind == "full" else up @ down
    if not is_low_rank:
        tensors["words.text_encoder.<my-dog>"] = torch.randn(2, 768, generator=generator)
    header = Header(
        family=FAMILIES[size],
        base_name="hub/base",
        base_fingerprint="0" * 64,
        method="low_rank" if is_low_rank else "cross_attention_kv",
        rank=RANK if is_low_rank else None,
        alpha=3.0 if is_low_rank else None,
        concepts=(Taught("my_dog", "<my-dog>", vectors=2),),
    )
    return AdapterFile(header, tensors), shapes


def cases(folder: Path) -> list[dict[str, Any]]:
    """Export every case to `folder` and describe it for the loaders."""
    made = []
    for number, (name, size, kind, target) in enumerate(CASES):
        adapter, shapes = adapter_of(size, kind)
        place = folder / str(number)
        own = save_adapter(place / "adapter.safetensors", adapter.header, adapter.tensors)
        base = Base("hub/base", Path("/nowhere"), FAMILIES[size], "0" * 64, 512, 64, 8)
        written = export(adapter, base, target, place, ExportOptions(name="dog"))
        words = [str(path) for path in written.files if path.parent.name == "embeddings"]
        facts = {"name": name, "size": size, "path": str(written.files[0]), "adapter": str(own)}
        made.append({**facts, "shapes": shapes, "embedding": words[0] if words else None})
    return made


def version(checkout: Path) -> str:
    """Read the version from git, or from the folder's file VERSION, which may stand in for it."""
    if (stated := checkout / "VERSION").is_file():
        return stated.read_text().strip()
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h (%cs)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def told(name: str, version_of: str, outcomes: list[dict[str, Any]]) -> str:
    """Lay out one front end's outcomes."""
    rows = [
        [
            o["file"],
            f"{o['matched']} of {o['layers']}",
            str(o["left"]),
            f"{o['error']:.1e}",
            o["note"],
        ]
        for o in outcomes
    ]
    titles = ["file", "layers matched", "keys left", "relative error", "note"]
    return f"\n{name} {version_of}\n{table(rows, titles)}"


def read_by_diffusers(pythons: list[str], results: dict[str, Any]) -> None:
    """Read the embedded base's exports with each Python's diffusers."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "cases.json"
        manifest.write_text(json.dumps(diffusers_cases(Path(folder))))
        for python in pythons:
            command = [python, str(HERE / "diffusers_loader.py"), str(manifest)]
            ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found = json.loads(ran.stdout.splitlines()[-1])
            versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
            name = f"diffusers {found['versions']['diffusers']}"
            results[name] = {"version": versions, "outcomes": found["outcomes"]}
            print(told(name, f"({versions})", found["outcomes"]))


def main() -> None:
    """Run each front end on all cases."""
    named = [argument.split("=", 1) for argument in sys.argv[1:]]
    assert named, __doc__
    pythons = [place for name, place in named if name == "diffusers"]
    checkouts = {name: place for name, place in named if name != "diffusers"}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    read_by_diffusers(pythons, results)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "cases.json"
        if checkouts:
            manifest.write_text(json.dumps(cases(Path(folder))))
        for name, checkout in checkouts.items():
            loader = [sys.executable, str(HERE / "frontend_loaders.py"), name, checkout]
            ran = subprocess.run([*loader, str(manifest)], stdout=subprocess.PIPE, check=True)
            outcomes = json.loads(ran.stdout.splitlines()[-1])
            results[name] = {"version": version(Path(checkout)), "outcomes": outcomes}
            print(told(name, results[name]["version"], outcomes))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
