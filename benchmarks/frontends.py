"""Run real front ends' loaders, from their own source, on files that we export at true sizes.

    python benchmarks/frontends.py comfyui=DIR kohya=DIR invokeai=DIR forge=DIR diffusers=PYTHON
    python benchmarks/frontends.py comfyui=DIR cases=klein
    python benchmarks/frontends.py --workflow comfyui=DIR

Each DIR is a checkout of the front end; PYTHON has one version of diffusers and may be given more
than once: the oldest and the newest that pyproject allows read every export there is. Prints the
tables of docs/frontends.md and writes them to results/frontends.json, where front ends not named
keep their last outcome. `cases` runs those alone whose name it is part of, and their outcome is
kept by itself. `--workflow` has ComfyUI's own executor run the workflow of an export, and diffusers
the same edit. Nothing of a front end is copied here; nothing is fetched.
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
from frontend_models import WORD_WIDTHS, klein, text_model, unet
from frontend_workflow import compare, write_world
from safetensors.torch import save_file
from torch import nn

from customize.adapters.file import AdapterFile, save_adapter
from customize.adapters.header import Header, Taught
from customize.drawing.table import table
from customize.exporting import export
from customize.exporting.targets import ExportOptions, Target
from customize.families import profile_of
from customize.families.base import Base, FamilyName

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "frontends.json"
FAMILIES: dict[str, FamilyName] = {
    "sd1": "instruct_pix2pix",
    "xl": "instruct_pix2pix_xl",
    "klein": "flux2_klein",
}
RANK = 2
READ_KLEIN = ("comfyui",)
"""Front ends whose loader of klein's layouts is run."""
CASES: tuple[tuple[str, str, str, Target], ...] = (
    ("LoRA, all targets and text, SD 1.5", "sd1", "taught", "kohya"),
    ("LoRA of every layer, SD 1.5", "sd1", "every", "kohya"),
    ("K/V with a word, low rank, SD 1.5", "sd1", "kv", "kohya"),
    ("K/V with a word, .diff, SD 1.5", "sd1", "full", "comfyui"),
    ("K/V with a word, bundled, SD 1.5", "sd1", "kv", "a1111"),
    ("LoRA, all targets and text, SDXL", "xl", "taught", "kohya"),
    ("LoRA of every layer, SDXL", "xl", "every", "kohya"),
    ("K/V with a word, low rank, SDXL", "xl", "kv", "kohya"),
    ("K/V with a word, .diff, SDXL", "xl", "full", "comfyui"),
    ("K/V with a word, bundled, SDXL", "xl", "kv", "a1111"),
    ("DoRA, .diff, SDXL", "xl", "dora", "comfyui"),
    ("merge of ranks 2 and 6 with a word, SDXL", "xl", "merge", "kohya"),
    ("LoRA of all, FLUX.2 klein 4B", "klein", "taught", "comfyui"),
    ("LoRA of all, FLUX.2 klein 4B", "klein", "taught", "kohya"),
    ("LoRA of all, FLUX.2 klein 4B", "klein", "taught", "invokeai"),
)
# What `targets` and the text encoder's rank can name, of the layers there are.
TAUGHT = re.compile(
    r"denoiser\..*\.(to_[qkv]|to_out\.0|proj_(in|out)|conv1|conv2|conv_shortcut|conv"
    r"|ff\.net\.(0\.proj|2))|text_encoder(_2)?\..*\.self_attn\..*"
)


def weighted(size: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield linear and convolution layers with their shapes, by their names in adapter files."""
    models: dict[str, Any] = {"denoiser": klein() if size == "klein" else unet(size)}
    if size != "klein":
        models["text_encoder"] = text_model("text_encoder")
    if size == "xl":
        models["text_encoder_2"] = text_model("text_encoder_2")
    for model, network in models.items():
        for path, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and path != "text_projection":
                yield f"{model}.{path.removeprefix('text_model.')}", tuple(module.weight.shape)


def chosen(size: str, kind: str) -> dict[str, tuple[int, ...]]:
    """Choose the layers that an adapter of a kind changes, with their shapes."""
    shapes, layers = dict(weighted(size)), profile_of(FAMILIES[size]).layers
    if kind == "every":
        return shapes
    if kind in ("taught", "merge"):
        taught = re.compile(rf"denoiser\.({layers.groups['all']})") if size == "klein" else TAUGHT
        return {layer: shape for layer, shape in shapes.items() if taught.fullmatch(layer)}
    keys = [layer for layer in shapes if re.fullmatch(rf"denoiser\.({layers.text_kv})", layer)]
    return {layer: shapes[layer] for layer in (keys if kind == "kv" else keys[:4])}


def adapter_of(size: str, kind: str, base: Path) -> tuple[AdapterFile, dict[str, tuple[int, ...]]]:
    """Make an adapter with known changes, and the shapes of what it changes.

    `every` is a LoRA of every layer at alpha 3, `taught` of those that recipes can name, `merge`
    the same of ranks 2 and 6, with a word; `kv` full changes of rank 2 of cross-attention's keys
    and values, with a word; `full` the same at full rank, in four layers; `dora` DoRA in four
    layers, whose weights are written to `base`.
    """
    generator = torch.Generator().manual_seed(0)
    shapes, tensors, base_weights = chosen(size, kind), dict[str, torch.Tensor](), {}
    full_changes = kind in ("kv", "full")
    for index, (layer, (out, width, *kernel)) in enumerate(shapes.items()):
        rank = RANK + (4 * (index % 2) if kind == "merge" else 0)
        down = torch.randn(rank, width, *kernel, generator=generator) / width**0.5
        up = 0.01 * torch.randn(out, rank, *[1] * len(kernel), generator=generator)
        if full_changes:
            full = torch.randn(out, width, generator=generator) / width
            tensors[f"{layer}.delta"] = full if kind == "full" else up @ down
            continue
        tensors |= {f"{layer}.lora_A": down, f"{layer}.lora_B": up}
        if kind == "dora":
            weight = torch.randn(out, width, generator=generator) / width**0.5
            base_weights[f"{layer.removeprefix('denoiser.')}.weight"] = weight
            tensors[f"{layer}.magnitude"] = weight.norm(dim=1) * 1.1
    if (full_changes or kind == "merge") and size != "klein":
        for encoder, width in WORD_WIDTHS[size].items():
            tensors[f"words.{encoder}.<my-dog>"] = torch.randn(2, width, generator=generator)
    if base_weights:
        (base / "unet").mkdir(parents=True)
        save_file(base_weights, base / "unet" / "diffusion_pytorch_model.safetensors")
    return AdapterFile(_header(size, kind, tensors), tensors), shapes


def _header(size: str, kind: str, tensors: dict[str, torch.Tensor]) -> Header:
    is_low_rank = kind in ("taught", "every", "dora")
    method = "merged" if kind == "merge" else "low_rank" if is_low_rank else "cross_attention_kv"
    word = "<my-dog>" if any(name.startswith("words.") for name in tensors) else None
    return Header(
        family=FAMILIES[size],
        base_name="hub/base",
        base_fingerprint="0" * 64,
        method=method,
        rank=RANK if is_low_rank else None,
        alpha=3.0 if is_low_rank else None,
        decompose=kind == "dora",
        concepts=(Taught("my_dog", word, vectors=2) if word else Taught("my_dog", None),),
    )


def cases(folder: Path, part: str) -> list[dict[str, Any]]:
    """Export cases whose name holds `part` to `folder` and describe them for the loaders."""
    made = []
    for number, (name, size, kind, target) in enumerate(CASES):
        if part not in name:
            continue
        place, own_base = folder / str(number), folder / f"base_{number}"
        adapter, shapes = adapter_of(size, kind, own_base)
        own = save_adapter(place / "adapter.safetensors", adapter.header, adapter.tensors)
        base = Base("hub/base", own_base, FAMILIES[size], "0" * 64, 512, 64, 8)
        written = export(adapter, base, target, place, ExportOptions(name="dog"))
        words = [str(path) for path in written.files if path.parent.name == "embeddings"]
        facts = {"name": f"{name} (`{target}`)", "size": size, "path": str(written.files[0])}
        facts |= {"adapter": str(own), "base": str(own_base) if kind == "dora" else None}
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


def run_workflow(checkout: Path) -> list[dict[str, Any]]:
    """Edit by ComfyUI's executor and by diffusers with one adapter, and compare the pictures."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pipeline = write_world(folder, checkout)
        adapter, _ = adapter_of("sd1", "merge", folder)
        strong = {n: t * 10 if n.endswith("lora_B") else t for n, t in adapter.tensors.items()}
        adapter = AdapterFile(adapter.header, strong)
        base = Base("hub/base", folder / "base", FAMILIES["sd1"], "0" * 64, 512, 64, 8)
        exports = dict[str, Path]()
        targets: tuple[Target, ...] = ("comfyui", "diffusers")
        for target in targets:
            exports[target] = folder / "exports" / target
            export(adapter, base, target, exports[target], ExportOptions(name="dog"))
        return compare(checkout, folder, exports, pipeline)


def main() -> None:
    """Run each front end on all cases."""
    named = [argument.split("=", 1) for argument in sys.argv[1:] if argument != "--workflow"]
    assert named, __doc__
    pythons = [place for name, place in named if name == "diffusers"]
    part = "".join(place for name, place in named if name == "cases")
    checkouts = {name: place for name, place in named if name not in ("diffusers", "cases")}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if "--workflow" in sys.argv:
        checkout = Path(checkouts.pop("comfyui"))
        outcomes = run_workflow(checkout)
        results["comfyui, workflow"] = {"version": version(checkout), "outcomes": outcomes}
        print("\n".join(map(json.dumps, outcomes)))
    read_by_diffusers(pythons, results)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "cases.json"
        made = cases(Path(folder), part) if checkouts else []
        for name, checkout in checkouts.items():
            read = [case for case in made if case["size"] != "klein" or name in READ_KLEIN]
            manifest.write_text(json.dumps(read))
            loader = [sys.executable, str(HERE / "frontend_loaders.py"), name, checkout]
            ran = subprocess.run([*loader, str(manifest)], stdout=subprocess.PIPE, check=True)
            outcomes = json.loads(ran.stdout.splitlines()[-1])
            key = f"{name}, {part}" if part else name
            results[key] = {"version": version(Path(checkout)), "outcomes": outcomes}
            print(told(name, results[key]["version"], outcomes))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
