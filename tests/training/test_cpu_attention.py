"""Blockwise attention: torch's own results and gradients, whatever the sizes and blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from customize.training import cpu_attention
from customize.training.cpu_attention import CpuAttention, attend


def reference(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    split: Any = [each.unflatten(2, (heads, -1)).transpose(1, 2) for each in (query, key, value)]
    output = F.scaled_dot_product_attention(*split, scale=scale)
    return output.transpose(1, 2).flatten(2)


def drawn(seed: int, *shapes: tuple[int, ...]) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    width=st.integers(1, 9),
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    block=st.integers(1, 3000),
    seed=st.integers(0, 99),
)
def test_blocks_of_any_size_give_torchs_results_and_gradients(
    batch: int, heads: int, width: int, queries: int, keys: int, block: int, seed: int
) -> None:
    shapes = [(batch, count, heads * width) for count in (queries, keys, keys)]
    inputs = drawn(seed, *shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_attention, "BLOCK", block)
        patch.setattr(cpu_attention, "SMALL", 0)
        found = attend(*inputs, heads=heads, scale=width**-0.5)
        ours = torch.autograd.grad(found.square().sum(), inputs)
    expected = reference(*inputs, heads=heads, scale=width**-0.5)
    theirs = torch.autograd.grad(expected.square().sum(), inputs)
    for one, other in zip((found, *ours), (expected, *theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("small", [0, 2**60], ids=["blocks", "plain"])
def test_bfloat16_is_as_near_to_float32_as_torchs_own(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "SMALL", small)
    inputs = drawn(0, (2, 96, 32), (2, 77, 32), (2, 77, 32))
    halves = [each.detach().bfloat16() for each in inputs]
    exact = reference(*inputs, heads=4, scale=8**-0.5)
    ours = (attend(*halves, heads=4, scale=8**-0.5) - exact).abs().mean()
    theirs = (reference(*halves, heads=4, scale=8**-0.5) - exact).abs().mean()
    assert 0 < ours < 1.5 * theirs


@pytest.mark.parametrize("upcast", [False, True])
@pytest.mark.parametrize("context_width", [None, 24])
@pytest.mark.parametrize("small", [0, 2**60], ids=["blocks", "torch's"])
def test_the_processor_equals_diffusers_own(
    small: int, context_width: int | None, upcast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "SMALL", small)
    torch.manual_seed(0)
    layer: Any = Attention(32, context_width, heads=4, dim_head=8, upcast_attention=upcast)
    hidden, text = drawn(1, (2, 30, 32), (2, 11, context_width or 32))
    context = None if context_width is None else text
    expected = layer(hidden, encoder_hidden_states=context)
    assert isinstance(layer.processor, AttnProcessor2_0)
    layer.set_processor(CpuAttention())
    torch.testing.assert_close(layer(hidden, encoder_hidden_states=context), expected)


def test_nothing_quadratic_is_kept_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "SMALL", 0)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(*drawn(0, (1, 256, 8), (1, 256, 8), (1, 256, 8)), heads=2, scale=0.5)
    assert len(kept) >= 3
    assert max(kept) <= 256 * 8
