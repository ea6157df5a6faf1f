"""Teach one correction to what each adapter alone makes the denoiser answer.

A merge of layers, each for itself, leaves an error that grows through the network. Here the merged
denoiser as a whole learns from those it was merged from, on what they are asked while they edit
(knowledge distillation, arXiv 1503.02531, on the students' and teachers' same inputs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from customize.adapters.low_rank import LowRankFactors, inject
from customize.merging.by_edits.recorded_calls import RecordedCall, answers, ask

BATCH = 16
POSITIONS = 4 * 64 * 64
"""Latent positions that learn at once: more is accumulated, for the memory of one GPU."""
BETAS = 0.9, 0.99
LEAST = 1e-8
"""Mean square below which a change is none, and its error no share of it."""


@dataclass(frozen=True)
class Lesson:
    """Calls to answer as they were answered.

    `change` is the mean square by which a lesson's answers typically differ from the base's: errors
    are shares of it, and count `weight`.
    """

    calls: Sequence[RecordedCall]
    change: float
    weight: float = 1.0


@dataclass(frozen=True)
class Course:
    """How long and how fast the correction learns, and at which rank."""

    steps: int = 300
    learning_rate: float = 1e-3
    rank: int = 16
    seed: int = 0


def squared_distance(denoiser: Any, calls: Sequence[RecordedCall]) -> float:
    """Return the mean square by which the recorded answers differ from the `denoiser`'s own."""
    own = answers(denoiser, calls, at_once=BATCH)
    squares = [
        float((call.answer_Chw - answer_Chw).float().square().mean())
        for call, answer_Chw in zip(calls, own, strict=True)
    ]
    return fmean(squares)


def distill(
    denoiser: Any, layers: Sequence[str], lessons: Sequence[Lesson], course: Course
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return the factors (down, up) to add to what each layer, named as in adapter files, does now.

    The denoiser is as it was afterwards.
    """
    place = next(denoiser.parameters()).device
    with _correctable(denoiser, layers, course) as factors:
        tensors = dict(factors.tensors())
        parameters = list(tensors.values())
        optimizer = torch.optim.AdamW(
            parameters, course.learning_rate, betas=BETAS, weight_decay=0.0
        )
        # Gradients of half-precision activations are too small for float16 as they are.
        half = next(denoiser.parameters()).dtype == torch.float16
        scaler = torch.amp.GradScaler(place.type, enabled=half)
        for step, batch in enumerate(_batches(lessons, course)):
            for group in optimizer.param_groups:
                group["lr"] = course.learning_rate * _pace(step / course.steps)
            for part, weights in _parts(batch):
                target = torch.stack([call.answer_Chw for call in part]).to(place)
                error_B = (ask(denoiser, part) - target).float().square().flatten(1).mean(1)
                total = (error_B * torch.tensor(weights, device=place)).sum()
                scaler.scale(total).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        found = {name: p.detach().float().cpu() for name, p in tensors.items()}
    return {layer: (found[f"{layer}.lora_A"], found[f"{layer}.lora_B"]) for layer in layers}


def _batches(
    lessons: Sequence[Lesson], course: Course
) -> Iterator[list[tuple[RecordedCall, float]]]:
    """Draw from all lessons in turn; each call with what multiplies its mean squared error."""
    generator = torch.Generator().manual_seed(course.seed)
    bar = tqdm(range(course.steps), "distilling", unit="step", disable=None)
    for step in bar:
        drawn = list[tuple[RecordedCall, float]]()
        for place in range(step * BATCH, (step + 1) * BATCH):
            one = lessons[place % len(lessons)]
            chosen = int(torch.randint(len(one.calls), (), generator=generator))
            drawn.append((one.calls[chosen], one.weight / max(one.change, LEAST) / BATCH))
        yield drawn


def _parts(
    batch: Sequence[tuple[RecordedCall, float]],
) -> Iterator[tuple[list[RecordedCall], list[float]]]:
    """Split a batch by size, and so that no more than `POSITIONS` learn at once."""
    sizes: dict[tuple[int, ...], list[tuple[RecordedCall, float]]] = {}
    for call, weight in batch:
        sizes.setdefault(tuple(call.sample_Chw.shape), []).append((call, weight))
    for shape, same in sizes.items():
        positions = shape[0] if len(shape) == 2 else math.prod(shape[1:])  # tokens, or a picture
        most = max(1, POSITIONS // positions)
        for start in range(0, len(same), most):
            calls, weights = zip(*same[start : start + most], strict=True)
            yield list(calls), list(weights)


def _pace(gone: float) -> float:
    return (1 + math.cos(math.pi * gone)) / 2


@contextmanager
def _correctable(denoiser: Any, layers: Sequence[str], course: Course) -> Iterator[LowRankFactors]:
    """Have trainable factors beside the layers while inside, everything else frozen."""
    learned = [p for p in denoiser.parameters() if p.requires_grad]
    denoiser.requires_grad_(False)
    names = {layer.removeprefix("denoiser.") for layer in layers}
    factors = inject("denoiser", denoiser, names, course.rank, course.seed)
    try:
        yield factors
    finally:
        factors.take_out(denoiser)
        for parameter in learned:
            parameter.requires_grad_(True)
