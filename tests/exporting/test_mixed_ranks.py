"""Layers of several ranks in kohya's layout: padded to one rank, right in every diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.bases import toy_header, toy_pipeline, toy_resolved
from safetensors.torch import load_file
from torch import Tensor

from customize.adapters.apply import module_of
from customize.adapters.deltas import layers, weight_delta
from customize.adapters.file import AdapterFile
from customize.exporting import export
from customize.exporting.targets import ExportOptions
from customize.families.base import Base
from customize.families.loading.layer_weights import BaseWeights
from customize.families.stable_diffusion.profiles import SD1

BLOCK = "denoiser.down_blocks.0.attentions.0.transformer_blocks.0"
TEXT = "text_encoder.encoder.layers.0.self_attn"
RANKS = {
    **{f"{BLOCK}.attn1.to_{part}": 2 for part in "qkv"},
    **{f"{BLOCK}.attn2.to_{part}": 5 for part in "qkv"},
    **{f"{TEXT}.{part}_proj": rank for part, rank in (("q", 1), ("k", 3), ("v", 1), ("out", 3))},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


def adapter_of(base: Base, ranks: dict[str, int]) -> AdapterFile:
    weights, random = BaseWeights(base), torch.Generator().manual_seed(0)
    tensors = {}
    for layer, rank in ranks.items():
        out, inputs = weights.shape(layer)
        tensors[f"{layer}.lora_A"] = torch.randn(rank, inputs, generator=random)
        tensors[f"{layer}.lora_B"] = torch.randn(out, rank, generator=random)
    header = toy_header(
        method="imported", base_name=base.name, base_fingerprint=base.fingerprint, rank=None,
        alpha=None, concepts=(),
    )  # fmt: skip
    return AdapterFile(header, tensors)


def test_a_kohya_file_has_one_rank_in_each_model_and_its_alpha(base: Base, tmp_path: Path) -> None:
    adapter = adapter_of(base, RANKS)
    written = export(adapter, base, "kohya", tmp_path / "out", ExportOptions(dtype="float32"))
    tensors = load_file(written.files[0])
    for model, highest in (("denoiser", 5), ("text_encoder", 3)):
        prefix = SD1.front_ends.kohya_prefixes[model]
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        downs = [t for name, t in own.items() if name.endswith("lora_down.weight")]
        alphas = [t for name, t in own.items() if name.endswith("alpha")]
        assert len(downs) == len(alphas) == sum(layer.startswith(model) for layer in RANKS)
        assert {len(down) for down in downs} == {highest}
        assert {float(alpha) for alpha in alphas} == {highest}


def test_diffusers_reads_every_layer_of_several_ranks_right(base: Base, tmp_path: Path) -> None:
    adapter = adapter_of(base, RANKS)
    written = export(adapter, base, "kohya", tmp_path / "out", ExportOptions(dtype="float32"))
    pipeline = toy_pipeline()
    untouched = {layer: weight_of(pipeline, layer).clone() for layer in RANKS}
    pipeline.load_lora_weights(str(written.files[0].parent), weight_name=written.files[0].name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert sorted(layers(adapter)) == sorted(RANKS)
    for layer, before in untouched.items():
        exact = weight_delta(adapter, layer, before)
        torch.testing.assert_close(weight_of(pipeline, layer) - before, exact, rtol=1e-4, atol=1e-4)


def test_a_limit_of_size_counts_the_zeros(base: Base, tmp_path: Path) -> None:
    adapter, limit = adapter_of(base, RANKS), 0.006
    options = ExportOptions(dtype="float32", size_mb=limit)
    written = export(adapter, base, "kohya", tmp_path / "out", options)
    assert written.files[0].stat().st_size <= limit * 1e6


def weight_of(pipeline: object, layer: str) -> Tensor:
    return module_of(pipeline, layer).weight.detach()
