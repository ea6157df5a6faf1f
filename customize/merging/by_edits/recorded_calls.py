"""What a denoiser was asked, and what it answered, while a pipeline edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

LEVEL = "timestep"
"""What diffusers' denoisers call the noise level."""

TextTensors = Mapping[str, Tensor]
"""Everything a denoiser takes besides its input and the level, by argument, nested by dots."""


@dataclass(frozen=True)
class RecordedCall:
    """One sample of one call: input (C, h, w), level (), texts and the answer (C', h, w).

    Input and answer of denoisers that read tokens are (L, C), sources among them.
    """

    sample_Chw: Tensor
    level: Tensor
    texts: TextTensors
    answer_Chw: Tensor


@contextmanager
def recorded(denoiser: nn.Module) -> Iterator[list[RecordedCall]]:
    """Collect each sample of every call inside, on the CPU; texts that stay are kept once."""
    calls, held = list[RecordedCall](), dict[tuple[str, int], Tensor]()

    def once(name: str, index: int, rows: Tensor) -> Tensor:
        """Return a sample's rows, the tensor of the call before where nothing changed."""
        new, old = rows[index].cpu(), held.get((name, index))
        if old is None or old.shape != new.shape or not torch.equal(old, new):
            held[name, index] = old = new.clone()
        return old

    first = _input_of(denoiser)

    def keep(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], answer: Any) -> None:
        told = {**dict(zip((first, LEVEL), given, strict=False)), **named}
        sample_BChw, level = told.pop(first), told.pop(LEVEL)
        level_B = torch.as_tensor(level).reshape(-1).expand(len(sample_BChw))
        texts = dict(_flat(told))
        for index in range(len(sample_BChw)):
            calls.append(
                RecordedCall(
                    sample_BChw[index].cpu(),
                    level_B[index].cpu(),
                    {name: once(name, index, rows) for name, rows in texts.items()},
                    answer[0][index].cpu(),
                )
            )

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def ask(denoiser: nn.Module, calls: Sequence[RecordedCall]) -> Tensor:
    """Ask a denoiser again, all at once; (B, C', h, w) of its dtype and device."""
    place: Any = next(denoiser.parameters())
    stacked = {name: torch.stack([call.texts[name] for call in calls]) for name in calls[0].texts}
    named: dict[str, Any] = {}
    for name, rows in stacked.items():
        *outer, inner = name.split(".")
        group = named.setdefault(outer[0], {}) if outer else named
        group[inner] = rows.to(place.device)
    named[_input_of(denoiser)] = torch.stack([call.sample_Chw for call in calls]).to(place.device)
    named[LEVEL] = torch.stack([call.level for call in calls]).to(place.device)
    answer: Any = denoiser(return_dict=False, **named)
    return answer[0]


def answers(denoiser: nn.Module, calls: Sequence[RecordedCall], at_once: int) -> list[Tensor]:
    """Ask again without gradients, `at_once` together; (C', h, w) on the CPU each."""
    with torch.no_grad():
        return [
            answer.cpu()
            for start in range(0, len(calls), at_once)
            for answer in ask(denoiser, calls[start : start + at_once])
        ]


def _input_of(denoiser: nn.Module) -> str:
    """Name the first argument of a denoiser's call: what it is to clean."""
    return next(name for name in signature(type(denoiser).forward).parameters if name != "self")


def with_texts_of(
    calls: Sequence[RecordedCall], others: Sequence[RecordedCall]
) -> list[RecordedCall]:
    """Give calls the texts of the first calls of `others`, who asked for the same edits in turn."""
    return [
        replace(call, texts=others[index % len(others)].texts) for index, call in enumerate(calls)
    ]


def _flat(named: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in named.items():
        match value:
            case Tensor():
                yield f"{place}{name}", value
            case dict():
                yield from _flat(value, f"{name}.")
            case _:  # return_dict, and what is None
                pass
