"""Choices as training sees them: winner and loser encoded, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from customize.adapters import learns_text
from customize.errors import Fault, PairsError
from customize.pairs.buckets import load_example
from customize.recipe import Recipe
from customize.scoring.choices.choice import Choice
from customize.shapes import Encoded, Pair
from customize.training.batches import sent
from customize.training.cache import Setting, View, encode_all
from customize.training.plan import Plan, views_of
from customize.training.run_folder import RunFolder

SEEN = 10
"""Of 255: from this difference of two results on, a pixel counts as chosen between."""


@dataclass(frozen=True)
class Chosen:
    """A choice encoded: both results under the same conditions, 1 where they differ, else 0."""

    winner: Encoded
    loser: Encoded
    differs_hw: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The latents' shape: choices of one shape can share a batch."""
        return tuple(self.winner.target_mean_Chw.shape)


@dataclass(frozen=True)
class ChosenBatch:
    """Choices of one shape, stacked: winners' and losers' latents, conditions, and masks."""

    winner_BChw: Tensor
    loser_BChw: Tensor
    differs_B1hw: Tensor
    conditions: Mapping[str, Tensor]


def encode_chosen(
    plan: Plan, choices: Sequence[Choice], folder: RunFolder, device: torch.device
) -> list[Chosen]:
    """Encode decided choices as the plan's pairs are; those whose results look alike are left out.

    Raises PairsError where none is left, or a picture cannot be read.
    """
    results = [(choice.winner, choice.loser) for choice in choices]
    pairs = [
        Pair(choice.source, choice.instruction, result.picture)
        for choice, both in zip(choices, results, strict=True)
        for result in both
        if result is not None
    ]
    views = [view for pair in pairs for view in views_of([pair], _middle_alone(plan), plan.base)]
    assert len(views) == 2 * len(choices)
    setting = Setting(plan.base, plan.words, as_tokens=learns_text(plan.method, plan.words))
    cached, _ = encode_all(folder.cache, setting, views, [""], device=device)
    found = [
        Chosen(won.edited, lost.edited, differs_hw)
        for won, lost, view, other in zip(
            cached[::2], cached[1::2], views[::2], views[1::2], strict=True
        )
        if (differs_hw := _differs(view, other, won.edited.target_mean_Chw.shape[1:])).any()
    ]
    if not found:
        fault = Fault("choices", "the two results look alike in every one", "choose between others")
        raise PairsError("choices", [fault])
    return found


def stack_chosen(chosen: Sequence[Chosen], device: torch.device | str = "cpu") -> ChosenBatch:
    """Put choices of one shape together on `device`."""

    def together(tensors: list[Tensor]) -> Tensor:
        return sent(torch.stack(tensors), device)

    return ChosenBatch(
        winner_BChw=together([each.winner.target_mean_Chw for each in chosen]),
        loser_BChw=together([each.loser.target_mean_Chw for each in chosen]),
        differs_B1hw=together([each.differs_hw[None] for each in chosen]),
        conditions={
            key: together([each.winner.conditions[key] for each in chosen])
            for key in chosen[0].winner.conditions
        },
    )


def _middle_alone(plan: Plan) -> Recipe:
    """Take the recipe without further views of a pair: choices were made between whole pictures."""
    options = plan.recipe.pairs.model_copy(update={"crops": 1, "flip": False, "recolored": 0})
    return plan.recipe.model_copy(update={"pairs": options})


def _differs(one: View, other: View, size_hw: Sequence[int]) -> Tensor:
    """Return (h, w): 1 where the results' pixels differ visibly, or in the latents' next cell."""
    first, second = (
        load_example(view.pair, view.size, alpha_color=view.alpha_color).target_HWC.astype(int)
        for view in (one, other)
    )
    seen_HW = torch.from_numpy((np.abs(first - second).max(axis=-1) > SEEN).astype(np.float32))
    cells_1hw = F.adaptive_max_pool2d(seen_HW[None], tuple(size_hw))
    return F.max_pool2d(cells_1hw, 3, stride=1, padding=1)[0]
