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

EVERY = 3
"""After the first steps, each of this many is made in full."""
FULL_STEPS = 1 / 6
"""Share of the steps, the first ones, made in full: what an edit does is decided there."""


def is_full(step: int, steps: int) -> bool:
    """Tell whether a step, from 0 on, is made in full."""
    return step < FULL_STEPS * steps or step % EVERY == 0


@dataclass
class GuidanceKept:
    """The layer that asks for all branches at some steps only.

    In between it asks for the one with instruction and source, and takes the differences between
    branches from the last full step: they change slowly (arXiv 2408.11194; as in FasterCache, arXiv
    2410.19355, section 3.3). Ending guidance early (arXiv 2404.07724) saves no more and costs more.
    """

    steps: int
    _step: int = 0
    _behind: list[Tensor] = field(default_factory=list)

    def __call__(self, answer: Answer, call: Call) -> Tensor:
        """Answer one step; see `denoiser_calls.Layer`."""
        step, self._step = self._step, self._step + 1
        if is_full(step, self.steps):
            predicted = answer(call)
            full, source, neither = predicted.chunk(BRANCHES)
            self._behind = [full - source, full - neither]
            return predicted
        rows = torch.arange(len(call.noisy_BChw) // BRANCHES)
        full = answer(call.rows(rows))
        return torch.cat([full, *(full - less for less in self._behind)])


@contextmanager
def deep_features_kept(denoiser: Any, steps: int) -> Iterator[None]:
    """Compute a UNet's inner levels at some steps; between, take their last answer.

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
        return is_full(self.step, self.steps)


class _Kept:
    """One block's own forward, answered from memory between full steps."""

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
