"""A quantized base: smaller, close to itself, frozen, and something adapters learn beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import shake, toy_resolved
from builders.runs import toy_recipe
from torch import nn

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.file import read_adapter
from customize.errors import TrainingError
from customize.families import open_family, profile_of
from customize.families.base import Base
from customize.training.memory.quantize import quantizable, quantize, quantized_bytes
from customize.training.run import run_recipe

KINDS: Any = ("int8", "nf4")
FAR = {"int8": 0.03, "nf4": 0.2}
CONDITIONS = {"source": torch.zeros(2, 4, 16, 16), "text": torch.ones(2, 24, 16)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


LAYERS = profile_of("instruct_pix2pix").layers


def predicted(family: Any) -> torch.Tensor:
    noisy = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    return family.predict(noisy, torch.tensor([10, 900]), CONDITIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_base_predicts_nearly_the_same(base: Base, kind: Any) -> None:
    family = open_family(base)
    expected = predicted(family)
    layers = quantizable(family.denoiser, LAYERS)
    assert quantize(family.denoiser, LAYERS, kind) == len(layers) > 40
    kinds = {parameter.dtype for parameter in family.denoiser.parameters()}
    assert kinds == {torch.float32, torch.int8 if kind == "int8" else torch.uint8}
    error = (predicted(family) - expected).norm() / expected.norm()
    assert 0 < error < FAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_that_bitsandbytes_takes(kind: Any) -> None:
    plain = nn.Linear(64, 128)
    expected = quantized_bytes(plain, kind)
    block = nn.ModuleDict({"x": nn.ModuleDict({"attentions": nn.ModuleDict({"q": plain})})})
    assert quantize(block, LAYERS, kind) == 1
    layer: Any = block.get_submodule("x.attentions.q")
    held = layer.weight.numel() * layer.weight.element_size()
    scales = layer.weight.quant_state.absmax.numel() if kind == "nf4" else layer.weight.SCB.numel()
    assert expected == held + 4 * scales


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [CrossAttentionKV(), LowRank(rank=2)], ids=["K/V", "LoRA"])
def test_adapters_learn_beside_quantized_layers(base: Base, kind: Any, method: Method) -> None:
    family = open_family(base)
    keep = isinstance(method, CrossAttentionKV)
    quantize(family.denoiser, LAYERS, kind, keep_text_kv=keep)
    attached = attach(family, method)
    start = predicted(family)
    with attached.switched_off():
        assert torch.equal(predicted(family), start)
    shake(attached)
    predicted(family).square().mean().backward()
    learned = attached.adapter_parameters()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
    assert any(p.grad.abs().max() > 0 for p in learned)  # pyright: ignore
    others = {id(p) for p in family.denoiser.parameters()} - {id(p) for p in learned}
    assert not [p for p in family.denoiser.parameters() if id(p) in others and p.requires_grad]
    if keep:
        kept = [m for n, m in family.denoiser.named_modules() if n.endswith("attn2.to_k")]
        assert kept
        assert all(type(module) is nn.Linear for module in kept)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_a_quantized_base_ends_with_an_ordinary_adapter(tmp_path: Path, kind: str) -> None:
    recipe = toy_recipe(
        tmp_path,
        base={"name": str(tmp_path / "base"), "quantization": kind},
        adapter={"method": "low_rank", "rank": 2},
        train={"steps": 3},
        preview={"every": 3},
    )
    result = run_recipe(recipe, log=lambda _: None, progress=False)
    assert result.adapter is not None
    adapter = read_adapter(result.adapter)
    assert adapter.header.recipe["base"]["quantization"] == kind
    assert all(tensor.dtype == torch.float32 for tensor in adapter.tensors.values())


def test_what_does_not_work_is_said(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes import nn as quantized

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(quantized, "Linear4bit", broken)
    with pytest.raises(TrainingError, match=r"nf4 does not work here \(RuntimeError: no kernel"):
        quantize(open_family(base).denoiser, LAYERS, "nf4")
