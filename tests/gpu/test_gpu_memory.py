"""Bases that take less of a GPU's memory: quantized, offloaded, their activations recomputed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import shake, toy_resolved
from builders.runs import toy_recipe
from torch import Tensor, nn

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.families import Family, open_family
from customize.families.base import Base
from customize.training.memory import offload as offloading
from customize.training.memory.offload import OffloadedConv2d, OffloadedLinear, offload_family
from customize.training.memory.quantize import quantizable, quantize

pytestmark = pytest.mark.gpu
FAR = {"int8": 0.04, "nf4": 0.25}
"""What quantization may change of a prediction; as on a CPU, with some room for its kernels."""
EVERYWHERE = ("attention", "convolutions", "feed_forward")
METHODS: dict[str, Method] = {
    "K/V": CrossAttentionKV(),
    "LoRA": LowRank(rank=2, targets=EVERYWHERE),
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return toy_resolved(tmp_path)


def predicted(family: Family, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy, source = torch.randn((2, 2, 4, 16, 16), generator=generator).to(device)
    conditions = {"source": source, "text": torch.ones(2, 24, 16, device=device)}
    return family.predict(noisy, torch.tensor([10, 900], device=device), conditions)


def far(one: Tensor, other: Tensor) -> float:
    """Return the distance of two tensors, as a share of the other's length."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", FAR)
@pytest.mark.parametrize("method", METHODS)
def test_a_quantized_base_predicts_nearly_the_same_and_adapters_learn_on_it(
    base: Base, kind: Any, method: str, device: torch.device
) -> None:
    family = open_family(base, device=device, dtype=torch.float32)
    expected = predicted(family, device).detach()
    keep, kinds = method == "K/V", family.profile.layers
    layers = quantizable(family.denoiser, kinds, keep_text_kv=keep)
    assert quantize(family.denoiser, kinds, kind, keep_text_kv=keep) == len(layers) > 20
    places = {parameter.device.type for parameter in family.denoiser.parameters()}
    assert places == {device.type}
    assert 0 < far(predicted(family, device), expected) < FAR[kind]
    attached = attach(family, METHODS[method])
    shake(attached)
    predicted(family, device).square().mean().backward()
    gradients = [parameter.grad for parameter in attached.adapter_parameters()]
    assert gradients
    assert all(g is not None and g.isfinite().all() and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_an_offloaded_base_predicts_and_teaches_the_same(
    base: Base,
    method: str,
    mixed: bool,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offloading, "SMALLEST", 250)
    found = list[list[Tensor]]()
    for away in (False, True):
        family = open_family(base, device="cpu" if away else device, dtype=torch.float32)
        if away:
            family = offload_family(family, device)
            stored = [
                layer.stored.weight
                for layer in family.denoiser.modules()
                if isinstance(layer, OffloadedLinear | OffloadedConv2d)
            ]
            assert len(stored) > 40
            assert {weight.device.type for weight in stored} == {"cpu"}
            assert all(weight.is_pinned() == (device.type == "cuda") for weight in stored)
        attached = attach(family, METHODS[method])
        shake(attached)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            prediction = predicted(family, device)
        prediction.float().square().mean().backward()
        gradients = [p.grad for p in attached.adapter_parameters() if p.grad is not None]
        found.append([prediction.detach().float(), *gradients])
    assert len(found[0]) == len(found[1]) > 8
    # Backward, other algorithms of convolution may be chosen than autograd does.
    near = 0.03 if mixed else 5e-3
    assert max(far(one, other) for one, other in zip(*found, strict=True)) < near


def test_offloading_leaves_the_weights_out_of_the_gpu(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("asks CUDA's allocator")
    layers, width = 8, 2048
    stack = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).requires_grad_(False)
    weight = 4 * width * width
    trial = torch.randn(4, width, device=device, requires_grad=True)
    nn.Linear(width, width, device=device)(trial).sum().backward()  # cuBLAS takes its workspace
    del trial
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    assert offloading.offload(stack, device) == layers * weight
    inputs = torch.randn(4, width, device=device, requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    stack(inputs).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().max() > 0
    assert torch.cuda.max_memory_allocated() - held < 3.5 * weight  # of eight


@pytest.mark.parametrize(
    "changes",
    [
        {"base": {"quantization": "nf4"}},
        {"base": {"quantization": "int8"}},
        {"base": {"offload": True}},
        {"train": {"gradient_checkpointing": True, "optimizer": "paged_adamw8bit"}},
    ],
    ids=str,
)
def test_a_run_that_saves_memory_learns_what_a_plain_one_does(
    tmp_path: Path, changes: dict[str, dict[str, Any]], device: torch.device, losses: Any
) -> None:
    shared = {"steps": 3, "precision": "bf16"}
    found = list[list[float]]()
    for name, more in (("plain", {}), ("small", changes)):
        recipe = toy_recipe(
            tmp_path,
            base={"name": str(tmp_path / "base"), **more.get("base", {})},
            adapter={"method": "low_rank", "rank": 2},
            train={**shared, **more.get("train", {})},
            output=str(tmp_path / name),
        )
        found.append(losses(recipe, device))
    assert len(found[0]) == len(found[1]) == 3
    assert found[1] == pytest.approx(found[0], rel=0.1)
