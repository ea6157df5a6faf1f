"""What a training step really keeps for its way back."""

from __future__ import annotations

import torch

from customize.adapters import Attached
from customize.families import Encoder, Family
from customize.shapes import Example
from customize.training.batches import Sample, stack, step_generator
from customize.training.loss import Goal, loss


def saved_bytes(
    family: Family, attached: Attached, encoder: Encoder, example: Example, count: int
) -> int:
    """Take a step's loss of `count` times an example; count the bytes saved, without weights."""
    encoded = encoder.encode(example, as_tokens=False)
    batch = stack([Sample(encoded, encoded)] * count)
    own = {p.untyped_storage().data_ptr() for p in family.denoiser.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    goal = Goal(encoder.text("", as_tokens=False))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = loss(family, attached, batch, goal, step_generator(0, 0)).total
    assert total.requires_grad
    return sum(kept.values())
