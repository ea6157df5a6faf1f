"""Mixed precision as adapters see it: where autocast is on, it casts what a layer reads itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def autocasts(device: str) -> bool:
    """Tell whether mixed precision is on for a kind of device."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def spare_casts(layer: Any) -> None:
    """Have a layer that peft wrapped make no float32 copy of its input that autocast casts back.

    Such a copy, and the one cast back, would be made and kept for every wrapped layer, instead of
    one input shared by queries, keys and values. The numbers are the same.
    """
    cast = layer._cast_input_dtype

    def cast_alone(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        return x if x is not None and autocasts(x.device.type) else cast(x, dtype)

    layer._cast_input_dtype = cast_alone
