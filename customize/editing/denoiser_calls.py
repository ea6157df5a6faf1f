"""Answer a pipeline's calls of its denoiser in another way: layers around `forward`, taken off at
the end. The pipeline stays diffusers' own.

A call's rows are the branches of guidance one after another, all pictures in each: with the
instruction and the source, with the source alone, with neither (Brooks et al. 2023, eq. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from customize.editing.replaced import replaced

BRANCHES = 3


@dataclass(frozen=True)
class Call:
    """One question to the denoiser; what `told` holds of tensors has a row for each of `noisy`."""

    noisy_BChw: Tensor
    time: Any
    told: Mapping[str, Any]

    def rows(self, chosen: Tensor) -> Call:
        """Ask the same of some rows only, which may repeat."""
        return replace(self, noisy_BChw=self.noisy_BChw[chosen], told=_rows(self.told, chosen))


Answer = Callable[[Call], Tensor]
"""A question to a prediction, (B, C, h, w)."""
Layer = Callable[[Answer, Call], Tensor]
"""A way to answer by means of what lies under it."""


@contextmanager
def answered_by(denoiser: nn.Module, *layers: Layer) -> Iterator[None]:
    """Let `layers`, the outermost first, answer every call of `denoiser` until the end."""
    own = denoiser.forward

    def innermost(call: Call) -> Tensor:
        return own(call.noisy_BChw, call.time, **call.told)[0]

    answer: Answer = innermost
    for layer in reversed(layers):
        answer = partial(layer, answer)

    def forward(noisy_BChw: Tensor, time: Any, **told: Any) -> tuple[Tensor]:
        assert told.get("return_dict") is False, "pipelines of diffusers ask for a tuple"
        return (answer(Call(noisy_BChw, time, told)),)

    with replaced(denoiser, "forward", forward):
        yield


def _rows(told: Any, chosen: Tensor) -> Any:
    """Choose rows of every tensor, however deep it lies."""
    if isinstance(told, Tensor) and told.ndim:
        return told[chosen]
    if isinstance(told, Mapping):
        return {name: _rows(value, chosen) for name, value in told.items()}
    return told


def without_branches(text_guidance: float, image_guidance: float) -> Layer | None:
    """Return the layer that leaves out a branch which guidance takes nothing from, if there is one.

    u + s_T (t - i) + s_I (i - u) needs no u where s_I is 1, and no i where s_I equals s_T. What is
    left out is answered by its neighbour, so that the pipeline's own formula comes out the same.
    """
    if text_guidance <= 1:  # the pipeline asks for one branch only
        return None
    if image_guidance == 1:
        return lambda answer, call: _some(answer, call, (0, 1), (0, 1, 1))
    if image_guidance == text_guidance:
        return lambda answer, call: _some(answer, call, (0, 2), (0, 1, 1))
    return None


def _some(answer: Answer, call: Call, asked: tuple[int, ...], given: tuple[int, ...]) -> Tensor:
    """Ask for some branches, and give out the answers in the order of `given`."""
    own = torch.arange(len(call.noisy_BChw)).chunk(BRANCHES)
    parts = answer(call.rows(torch.cat([own[branch] for branch in asked]))).chunk(len(asked))
    return torch.cat([parts[index] for index in given])
