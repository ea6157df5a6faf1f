"""Attention for training on a CPU: scores are made block by block, in the cache, and made again.

torch's fused kernel is written for inference: its backward pass took 60 % of a step. Plain
attention writes every score to memory. Here a block of scores stays in the processor's cache, all
products have their long side last (skinny ones are up to ten times slower on these CPUs), and the
backward pass recomputes the scores, so that nothing quadratic is kept. Products are `torch.bmm`:
`@` copies a transposed block first, which took as long as all the rest.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.autograd.function import once_differentiable

BLOCK = 2**21
"""Scores at a time: 4 MiB in bfloat16, 8 in float32; measured best of 2**16 to 2**22."""
SMALL = 2**18
"""Scores a head (queries times keys) below which one of torch's own ways is as fast."""


class BlockwiseAttention(torch.autograd.Function):
    """Exact softmax attention over queries (G, D, N), scaled already, keys and values (G, D, M).

    G counts heads of all samples. The scores are recomputed as in FlashAttention (arXiv 2205.14135,
    algorithm 4), but whole rows at a time, so that no running maximum is needed.
    """

    @staticmethod
    def forward(ctx: Any, query_GDN: Tensor, key_GDM: Tensor, value_GDM: Tensor) -> Tensor:
        """Return (G, D, N)."""
        ctx.save_for_backward(query_GDN, key_GDM, value_GDM)
        output_GDN = torch.empty_like(query_GDN)
        with torch.autocast("cpu", enabled=False):
            for g, n in _blocks(query_GDN, key_GDM):
                share = torch.softmax(torch.bmm(query_GDN[g, :, n].mT, key_GDM[g]), -1)
                output_GDN[g, :, n] = torch.bmm(value_GDM[g], share.mT)
        return output_GDN

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of queries, keys and values."""
        (output_GDN,) = gradients
        query_GDN, key_GDM, value_GDM = ctx.saved_tensors
        query_grad, key_grad = torch.empty_like(query_GDN), torch.zeros_like(key_GDM)
        value_grad = torch.zeros_like(value_GDM)
        for g, n in _blocks(query_GDN, key_GDM):
            query, output = query_GDN[g, :, n], output_GDN[g, :, n]
            share = torch.softmax(torch.bmm(query.mT, key_GDM[g]), -1)
            value_grad[g] += torch.bmm(output, share)
            share_grad = torch.bmm(output.mT, value_GDM[g])
            score_grad = torch._softmax_backward_data(share_grad, share, -1, share.dtype)
            query_grad[g, :, n] = torch.bmm(key_GDM[g], score_grad.mT)
            key_grad[g] += torch.bmm(query, score_grad)
        return query_grad, key_grad, value_grad


class CpuAttention:
    """A diffusers attention processor that takes the fastest way for each layer's size."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Attend from (B, N, C) to itself, or to the text (B, M, C')."""
        assert attention_mask is None, "a UNet's transformer blocks attend to everything"
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attention.to_q(hidden_states),
            attention.to_k(context),
            attention.to_v(context),
        )
        kind = query.dtype
        if attention.upcast_attention:
            query, key, value = query.float(), key.float(), value.float()
        joined = attend(query, key, value, attention.heads, attention.scale).to(kind)
        for layer in attention.to_out:
            joined = layer(joined)
        return joined


def attend(
    query_BNC: Tensor, key_BMC: Tensor, value_BMC: Tensor, heads: int, scale: float
) -> Tensor:
    """Return softmax(scale q k^T) v of every head, joined again: (B, N, C)."""
    batch = len(query_BNC)
    if query_BNC.shape[1] * key_BMC.shape[1] >= SMALL:
        query_GDN, key_GDM, value_GDM = (
            each.unflatten(2, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
            for each in (query_BNC * scale, key_BMC, value_BMC)
        )
        output_GDN: Any = BlockwiseAttention.apply(query_GDN, key_GDM, value_GDM)
        return output_GDN.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)
    query, key, value = (
        each.unflatten(2, (heads, -1)).transpose(1, 2) for each in (query_BNC, key_BMC, value_BMC)
    )
    if query.dtype == torch.float32:
        output = F.scaled_dot_product_attention(query, key, value, scale=scale)
    else:
        output = torch.softmax((query * scale) @ key.mT, -1).to(value.dtype) @ value
    return output.transpose(1, 2).flatten(2)


def _blocks(query_GDN: Tensor, key_GDM: Tensor) -> list[tuple[slice, slice]]:
    """Cut heads, and queries where one head has too many scores, into blocks of about `BLOCK`."""
    heads, _, queries = query_GDN.shape
    keys = key_GDM.shape[2]
    group = max(1, BLOCK // (queries * keys))
    rows = queries if queries * keys <= BLOCK else max(1, BLOCK // keys)
    blocks = [
        (slice(g, g + group), slice(n, n + rows))
        for g in range(0, heads, group)
        for n in range(0, queries, rows)
    ]
    # Tensors without content are there to show the memory in use: one block shows it all.
    return blocks[:1] if is_fake(query_GDN) else blocks
