"""What layers read while a pipeline edits, kept as second moments: memory by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 64
"""Most positions of one picture that count at once: neighbours tell nearly the same."""

EXACT = 1024
"""Up to this width moments are float64: the start token that all texts share is so large that
rounding to float32 would hide the directions in which they differ.
"""


@dataclass
class Moments:
    """The sum of x x^T (K, K) over the `rows` inputs x that a layer has read so far."""

    sum_KK: Tensor
    rows: int = 0

    @property
    def mean(self) -> Tensor:
        """Return E[x x^T] (K, K), zero before anything was read."""
        return self.sum_KK / max(self.rows, 1)


def can_capture(module: nn.Module) -> bool:
    """Tell whether a layer multiplies rows of its input by a matrix: linear, or plain convolution.

    >>> can_capture(nn.Linear(3, 2)), can_capture(nn.Conv2d(4, 4, 3, groups=4))
    (True, False)
    """
    match module:
        case nn.Linear():
            return True
        case nn.Conv2d():
            return module.groups == 1 and not isinstance(module.padding, str)
        case _:
            return False


@contextmanager
def capturing(modules: Mapping[str, nn.Module], seed: int = 0) -> Iterator[Mapping[str, Moments]]:
    """Sum up what the modules read while inside; the moments are those of `modules`' names.

    Of each picture at most `ROWS` positions are taken at each call, drawn anew from `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Moments] = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            width = width_of(module)
            dtype = torch.float64 if width <= EXACT else torch.float32
            found[name] = Moments(torch.zeros(width, width, dtype=dtype))
            hook = module.register_forward_pre_hook(_adder(found[name], generator))
            stack.callback(hook.remove)
        yield found


def width_of(module: nn.Module) -> int:
    """Return K, how many numbers make one row: in-features times the kernel's area."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel()


def rows_of(module: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """Yield each sample's rows (L, K): what times the flattened weight (O, K) gives the output."""
    if not isinstance(module, nn.Conv2d):
        yield from inputs.reshape(-1, *inputs.shape[-2:])
        return
    options: Any = {
        "kernel_size": module.kernel_size,
        "dilation": module.dilation,
        "padding": module.padding,
        "stride": module.stride,
    }
    for picture_Chw in inputs:
        yield F.unfold(picture_Chw[None], **options)[0].T


def in_groups(
    modules: Mapping[str, nn.Module], sets: int, most_bytes: int
) -> Iterator[Sequence[str]]:
    """Split the layers so that `sets` moments of each group's layers take at most `most_bytes`.

    A layer that is larger alone makes a group of its own.
    """
    group, used = list[str](), 0
    for name, module in modules.items():
        width = width_of(module)
        size = (8 if width <= EXACT else 4) * sets * width**2
        if group and used + size > most_bytes:
            yield group
            group, used = [], 0
        group.append(name)
        used += size
    if group:
        yield group


def _adder(moments: Moments, generator: torch.Generator) -> Callable[..., None]:
    """Make the hook that adds a module's inputs to its moments."""

    def drawn(rows_LK: Tensor) -> Tensor:
        if len(rows_LK) <= ROWS:
            return rows_LK
        chosen = torch.randperm(len(rows_LK), generator=generator)[:ROWS]
        return rows_LK[chosen.to(rows_LK.device)]

    @torch.no_grad()
    def add(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        each = rows_of(module, arguments[0].detach().float())
        rows_NK = torch.cat([drawn(rows_LK) for rows_LK in each])  # one product is much faster
        rows_NK = rows_NK.to(moments.sum_KK.dtype)
        moments.sum_KK = moments.sum_KK.to(rows_NK.device).addmm_(rows_NK.T, rows_NK)
        moments.rows += len(rows_NK)

    return add
