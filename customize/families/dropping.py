"""Hide conditions in training, so that an edit can be guided by text and by source apart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from customize.families import Dropout
from customize.shapes import Conditions


def hide_conditions(
    conditions: Conditions, empty_text: Mapping[str, Tensor], uniform_B: Tensor, dropout: Dropout
) -> Conditions:
    """Hide conditions by one uniform number a sample, as InstructPix2Pix's code does (5 % each).

    In order of the number: text hidden (`empty_text`), both hidden, `source` hidden (zeros),
    nothing hidden. Other conditions stay.
    """
    text_ends = dropout.text + dropout.both
    no_text_B = uniform_B < text_ends
    no_source_B = (uniform_B >= dropout.text) & (uniform_B < text_ends + dropout.image)
    hidden = {"source": (no_source_B, torch.zeros_like(conditions["source"][0]))}
    hidden |= {key: (no_text_B, empty) for key, empty in empty_text.items()}
    assert hidden.keys() <= conditions.keys(), (hidden.keys(), conditions.keys())
    return {
        **conditions,
        **{
            key: torch.where(mask_B.view(-1, *[1] * empty.ndim), empty, conditions[key])
            for key, (mask_B, empty) in hidden.items()
        },
    }
