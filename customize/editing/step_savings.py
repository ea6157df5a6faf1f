"""Leave out work at some steps of sampling, at a small price in likeness: what `--fast` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from customize.editing.denoiser_calls import BRANCHES, Answer, Call
from customize.editing.replaced import replaced

FULL_STEPS = 1 / 6
"""Share of the steps, the first ones, made in full: what an edit does is decided there."""


@dataclass
class GuidanceKept:
    """The layer that asks for all branches at every second step only.

    In between it asks for the one with instruction and source, and takes the differences between
    branches from the step before: they change slowly (arXiv 2408.11194; as in FasterCache, arXiv
    2410.19355, section 3.3). From `until` steps on, guidance ends: it matters least where the
    noise is low (arXiv 2404.07724).
    """

    steps: int
    until: int
    _step: int = 0
    _behind: list[Tensor] = field(default_factory=list)

    def __call__(self, answer: Answer, call: Call) -> Tensor:
        """Answer one step; see `denoiser_calls.Layer`."""
        step, self._step = self._step, self._step + 1
        guided = step < self.until
        if guided and (step < FULL_STEPS * self.steps or step % 2 == 0):
            predicted = answer(call)
            full, source, neither = predicted.chunk(BRANCHES)
            self._behind = [full - source, full - neither]
            return predicted
        rows = torch.arange(len(call.noisy_BChw) // BRANCHES)
        full = answer(call.rows(rows))
        behind = self._behind if guided else [torch.zeros_like(full)] * 2
        return torch.cat([full, *(full - less for less in behind)])


@contextmanager
def deep_features_kept(denoiser: Any, steps: int) -> Iterator[None]:
    """Compute a UNet's inner levels at every second step; between, take their last answer.

    What the inner levels say changes slowly from step to step (DeepCache, arXiv 2312.00858,
    section 3.2); the outermost level, where the picture's detail is, is computed always. Calls with
    fewer branches than the kept answer has take its first rows.
    """
    inner = [*denoiser.down_blocks[1:], denoiser.mid_block, *denoiser.up_blocks[:-1]]
    turn = _Turn(steps)
    with ExitStack() as stack:
        own = denoiser.forward

        def forward(*given: Any, **told: Any) -> Any:
            turn.begin()
            return own(*given, **told)

        stack.enter_context(replaced(denoiser, "forward", forward))
        for module in inner:
            stack.enter_context(replaced(module, "forward", _Kept(module, turn)))
        yield


@dataclass
class _Turn:
    """Which step a run is at, and whether the inner levels are computed at it."""

    steps: int
    step: int = -1

    def begin(self) -> None:
        self.step += 1

    @property
    def full(self) -> bool:
        return self.step < FULL_STEPS * self.steps or self.step % 2 == 0


class _Kept:
    """One block's own forward, answered from memory at every second step."""

    def __init__(self, module: nn.Module, turn: _Turn) -> None:
        self._own, self._turn = module.forward, turn
        self._answer: Any = None

    def __call__(self, hidden_states: Tensor, *given: Any, **told: Any) -> Any:
        count = len(hidden_states)
        if self._turn.full or self._answer is None or _count(self._answer) < count:
            self._answer = self._own(hidden_states, *given, **told)
        return _first(self._answer, count)


def _count(answer: Any) -> int:
    return len(answer) if isinstance(answer, Tensor) else _count(answer[0])


def _first(answer: Any, count: int) -> Any:
    """Take the first rows of every tensor in a block's answer."""
    if isinstance(answer, Tensor):
        return answer[:count]
    return tuple(_first(part, count) for part in answer)
