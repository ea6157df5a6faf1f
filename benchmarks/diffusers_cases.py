"""Adapters of the embedded base, exported to all that diffusers reads, with their exact changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from customize.adapters.deltas import weight_deltas
from customize.adapters.file import AdapterFile
from customize.adapters.header import Header, Taught
from customize.exporting import export
from customize.exporting.targets import ExportOptions, Target
from customize.families.base import Base, resolve_base
from customize.families.loading.layer_weights import BaseWeights

WAYS: tuple[tuple[Target, str], ...] = (
    ("kohya", "lora"),
    ("diffusers", "lora"),
    ("peft", "peft"),
    ("custom-diffusion", "attention processors"),
)
KINDS = ("LoRA and a word", "LoRA of ranks 2, 4 and 6", "DoRA", "full K/V")


def adapter_of(kind: str, base: Base, weights: BaseWeights) -> AdapterFile:
    """Make an adapter of known changes, random from a seed."""
    generator, tensors = torch.Generator().manual_seed(0), dict[str, Tensor]()

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    ends = ("attn2.to_k", "attn2.to_v", "conv1", "q_proj", "k_proj", "v_proj", "out_proj")
    layers = [layer for layer in weights.layers() if layer.endswith(ends)]
    if kind == "full K/V":
        layers = [layer for layer in layers if ".attn2." in layer]
    for index, layer in enumerate(sorted(layers)):
        out, *rest = weights.shape(layer)
        rank = 2 + 2 * (index % 3) if "ranks" in kind else 4
        if kind == "full K/V":
            tensors[f"{layer}.delta"] = noise(out, *rest) * 0.1
            continue
        tensors[f"{layer}.lora_A"] = noise(rank, *rest)
        tensors[f"{layer}.lora_B"] = noise(out, rank, *[1] * len(rest[1:]))
        if kind == "DoRA":
            norms = weights[layer].float().flatten(1).norm(dim=1)
            tensors[f"{layer}.magnitude"] = norms * (1 + noise(out))
    word = "<my-dog>" if "word" in kind else None
    if word:
        width = weights.shape("text_encoder.embeddings.token_embedding")[1]
        tensors[f"words.text_encoder.{word}"] = noise(2, width)
    header = Header(
        family=base.family,
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        method="merged",
        concepts=(Taught("my_dog", word, vectors=2),),
    )
    return AdapterFile(header, tensors)


def diffusers_cases(folder: Path) -> list[dict[str, Any]]:
    """Export every kind to every target that holds it, and describe them for diffusers_loader."""
    base = resolve_base("embedded")
    weights, cases = BaseWeights(base), list[dict[str, Any]]()
    for kind in KINDS:
        adapter = adapter_of(kind, base, weights)
        exact = dict(weight_deltas(adapter, weights.__getitem__))
        exact |= {n: t for n, t in adapter.tensors.items() if n.startswith("words.")}
        place = folder / kind.replace(" ", "_").replace("/", "_")
        place.mkdir()
        save_file({n: t.contiguous() for n, t in exact.items()}, place / "exact.safetensors")
        for target, way in WAYS:
            if (target == "custom-diffusion") != (kind == "full K/V") and target != "kohya":
                continue
            written = export(adapter, base, target, place / target, ExportOptions(name="dog"))
            words = [p for p in written.files if p.parent.name == "embeddings"]
            cases.append(
                {
                    "name": f"{kind} ({target})",
                    "way": way,
                    "path": str(written.folder if way == "peft" else written.files[0]),
                    "base": str(base.folder),
                    "exact": str(place / "exact.safetensors"),
                    "words": {"<my-dog>": str(words[0])} if words else {},
                }
            )
    return cases
