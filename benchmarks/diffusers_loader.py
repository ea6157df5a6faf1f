"""Read exported files with whatever diffusers this Python has; imports nothing of customize.

Called by frontends.py as `PYTHON diffusers_loader.py MANIFEST`; prints versions and outcomes as
JSON. A case names a base, files, how to load them, and a file of the exact changes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers
from diffusers import StableDiffusionInstructPix2PixPipeline
from safetensors.torch import load_file

RIGHT = 2e-3
"""Relative error (Frobenius) up to which a layer counts as right; files are float16."""


def opened(base: str) -> Any:
    """Open the base's pipeline in float32."""
    return StableDiffusionInstructPix2PixPipeline.from_pretrained(
        base, torch_dtype=torch.float32, safety_checker=None
    )


def module_of(pipeline: Any, layer: str) -> Any:
    """Find a layer by its name in adapter files."""
    component, _, path = layer.partition(".")
    root = getattr(pipeline, "unet" if component == "denoiser" else component)
    for name in (path, f"text_model.{path}"):
        with contextlib.suppress(AttributeError):
            return root.get_submodule(name)
    raise KeyError(layer)


def load(pipeline: Any, case: Mapping[str, Any]) -> None:
    """Load a case's files as the exported README says, and leave them in the weights."""
    path = Path(case["path"])
    if case["way"] == "peft":
        for folder in sorted(path.glob("*/adapter_model.safetensors")):
            name = folder.parent.name
            model = peft.PeftModel.from_pretrained(getattr(pipeline, name), str(folder.parent))
            setattr(pipeline, name, model.merge_and_unload())
    elif case["way"] == "attention processors":
        pipeline.unet.load_attn_procs(str(path.parent), weight_name=path.name, _pipeline=pipeline)
    else:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    for word, file in case["words"].items():
        pipeline.load_textual_inversion(file, token=word)


def weight_of(pipeline: Any, layer: str) -> torch.Tensor:
    """Return a layer's weight, an attention processor's own where there is one."""
    module, _, name = layer.removeprefix("denoiser.").rpartition(".")
    processor = pipeline.unet.attn_processors.get(f"{module}.processor")
    replaced = getattr(processor, f"{name}_custom_diffusion", None)
    return (replaced or module_of(pipeline, layer)).weight.detach()


def outcome(case: Mapping[str, Any]) -> dict[str, Any]:
    """Count the layers that come out right."""
    exact, before, pipeline = load_file(case["exact"]), opened(case["base"]), opened(case["base"])
    load(pipeline, case)
    errors = {
        layer: float(
            (weight_of(pipeline, layer) - weight_of(before, layer) - delta).norm() / delta.norm()
        )
        for layer, delta in exact.items()
        if not layer.startswith("words.")
    }
    words = {name: rows for name, rows in exact.items() if name.startswith("words.")}
    table = pipeline.text_encoder.get_input_embeddings().weight
    told = ", word read" * bool(words)
    for name, rows in words.items():
        tokens = [name.rpartition(".")[2]]
        tokens += [f"{tokens[0]}_{index}" for index in range(1, len(rows))]
        found = table[pipeline.tokenizer.convert_tokens_to_ids(tokens)].detach()
        if not torch.allclose(found, rows, rtol=1e-3, atol=1e-4):
            told = ", word WRONG"
    return {
        "file": case["name"],
        "layers": len(errors),
        "matched": sum(error < RIGHT for error in errors.values()),
        "error": max(errors.values(), default=0.0),
        "left": 0,
        "examples": [],
        "note": told.removeprefix(", "),
    }


def main() -> None:
    """Run every case of the manifest."""
    cases, outcomes = json.loads(Path(sys.argv[1]).read_text()), []
    with contextlib.redirect_stdout(sys.stderr):
        for case in cases:
            try:
                outcomes.append(outcome(case))
            except Exception as error:
                note = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                facts = {"layers": len(load_file(case["exact"])), "matched": 0, "error": 0.0}
                rest = {"left": 0, "examples": [], "note": note}
                outcomes.append({"file": case["name"], **facts, **rest})
    versions = {m.__name__: m.__version__ for m in (diffusers, peft, transformers, torch)}
    print(json.dumps({"versions": versions, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
