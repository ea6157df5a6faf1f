"""8-bit optimizers on a GPU: they work, keep small states, and learn as full precision does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from customize.training.lion import Lion
from customize.training.optimizer import eight_bit_fault, make_optimizer

pytestmark = pytest.mark.gpu
FULL: dict[str, Any] = {
    "adamw8bit": torch.optim.AdamW,
    "paged_adamw8bit": torch.optim.AdamW,
    "lion8bit": Lion,
}


class Learned:
    """Stands for an adapter: one large tensor, and one that is too small for 8-bit states."""

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.large, self.small = (
            nn.Parameter(torch.randn(shape, generator=generator).to(device))
            for shape in ((96, 64), (16,))
        )

    def adapter_parameters(self) -> list[nn.Parameter]:
        return [self.large, self.small]

    def word_parameters(self) -> list[nn.Parameter]:
        return []


def learn(learned: Learned, optimizer: torch.optim.Optimizer, steps: int = 30) -> Tensor:
    for _ in range(steps):
        loss = (learned.large - 2).square().mean() + (learned.small + 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return learned.large.detach()


@pytest.mark.parametrize("name", FULL)
def test_an_8_bit_optimizer_learns_as_full_precision_does(name: Any, device: torch.device) -> None:
    assert eight_bit_fault(name, device) is None
    small, full = Learned(device), Learned(device)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it would say that another is used instead
        optimizer = make_optimizer(name, small, learning_rate=0.02)  # pyright: ignore
    start = small.large.detach().clone()
    learned = learn(small, optimizer)
    expected = learn(full, FULL[name](full.adapter_parameters(), lr=0.02, weight_decay=0.0))
    assert (learned - start).norm() > 1
    assert (learned - expected).norm() < 0.1 * (expected - start).norm()
    states = {
        tensor.dtype
        for key, tensor in optimizer.state[small.large].items()
        if key in ("state1", "state2")
    }
    assert states == {torch.uint8}
    assert optimizer.state[small.small]["state1"].dtype == torch.float32
