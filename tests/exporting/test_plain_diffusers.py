"""What plain diffusers makes of our files, by the short calls that people type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_header, toy_pipeline, toy_resolved, toy_xl_base
from diffusers import DiffusionPipeline, StableDiffusionInstructPix2PixPipeline
from PIL import Image
from safetensors.torch import load_file

from customize.adapters.apply import module_of
from customize.adapters.deltas import weight_delta
from customize.adapters.file import AdapterFile
from customize.exporting import export
from customize.exporting.targets import ExportOptions, FilePrecision
from customize.families import profile_of
from customize.families.base import EMBEDDED, Base, resolve_base
from customize.families.loading.layer_weights import BaseWeights

KINDS = ("attn1.to_q", "text_encoder.encoder.layers.0.self_attn.q_proj")
PICTURE = Image.new("RGB", (32, 32), "teal")


@pytest.fixture(scope="module", params=["sd1", "xl"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")
    return (
        toy_resolved(folder) if request.param == "sd1" else resolve_base(str(toy_xl_base(folder)))
    )


def layers_of(base: Base) -> list[str]:
    """Choose one layer of the denoiser and one of a text encoder."""
    names = sorted(BaseWeights(base).layers())
    return [next(name for name in names if name.endswith(kind)) for kind in KINDS]


def adapter_of(base: Base, *, magnitudes: bool = False) -> AdapterFile:
    weights, random, tensors = BaseWeights(base), torch.Generator().manual_seed(0), {}
    for layer in layers_of(base):
        out, inputs = weights.shape(layer)
        tensors[f"{layer}.lora_A"] = torch.randn(2, inputs, generator=random)
        tensors[f"{layer}.lora_B"] = torch.randn(out, 2, generator=random)
        if magnitudes:
            tensors[f"{layer}.magnitude"] = torch.rand(out, generator=random) + 0.5
    facts = {"base_name": base.name, "base_fingerprint": base.fingerprint, "family": base.family}
    return AdapterFile(
        toy_header(method="imported", rank=None, alpha=None, concepts=(), **facts), tensors
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_whole_model_opens_and_edits_without_arguments(
    base: Base, dtype: FilePrecision, tmp_path: Path
) -> None:
    written = export(
        adapter_of(base), base, "full-model", tmp_path, ExportOptions("dog", dtype=dtype)
    )
    folder = tmp_path / "dog"
    assert folder / "model_index.json" in written.files
    profile = profile_of(base.family)
    for opener in (DiffusionPipeline, getattr(__import__("diffusers"), profile.pipeline)):
        pipeline: Any = opener.from_pretrained(folder)
        assert {getattr(pipeline, part).dtype for part in profile.components} == {torch.float32}
        pipeline("make it red", image=PICTURE, num_inference_steps=1, height=32, width=32)
    halves = opener.from_pretrained(folder, torch_dtype=torch.float16)
    assert {getattr(halves, part).dtype for part in profile.components} == {torch.float16}


def test_the_embedded_weights_open_and_edit_without_arguments() -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(EMBEDDED)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    pipeline("make it red", image=PICTURE, num_inference_steps=1)


def test_magnitudes_of_a_text_encoder_are_read(tmp_path: Path) -> None:
    base = toy_resolved(tmp_path / "base")
    adapter = adapter_of(base, magnitudes=True)
    written = export(adapter, base, "diffusers", tmp_path / "out", ExportOptions(dtype="float32"))
    names = [name for name in load_file(written.files[0]) if "magnitude" in name]
    assert len(names) == len(KINDS)
    pipeline = toy_pipeline()
    before = {
        layer: module_of(pipeline, layer).weight.detach().clone() for layer in layers_of(base)
    }
    pipeline.load_lora_weights(str(written.folder), weight_name=written.files[0].name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    for layer, weight in before.items():
        found = module_of(pipeline, layer).weight.detach() - weight
        torch.testing.assert_close(
            found, weight_delta(adapter, layer, weight), rtol=1e-3, atol=1e-4
        )
