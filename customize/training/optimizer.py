"""From the optimizer's name in a recipe to the optimizer, its rates over time, and an average."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
from torch import Tensor

from customize.adapters import Attached
from customize.errors import TrainingError
from customize.families.loading.quiet import hush

OptimizerName = Literal["adamw8bit", "paged_adamw8bit", "lion8bit", "adamw", "prodigy"]
EightBit = Literal["adamw8bit", "paged_adamw8bit", "lion8bit"]
Schedule = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class Pace:
    """How many optimizer steps, of how many batches, how long each, at which part of the rate."""

    steps: int
    accumulation: int = 1
    clip_norm: float | None = None
    schedule: Schedule = "constant"
    warmup: int = 0

    def factor(self, step: int) -> float:
        """Return what multiplies the learning rate at `step`, from 0; resuming cannot shift it.

        >>> [round(Pace(4, schedule="linear").factor(step), 2) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]
        """
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        gone = (step - self.warmup) / max(1, self.steps - self.warmup)
        match self.schedule:
            case "constant":
                return 1.0
            case "cosine":
                return (1 + math.cos(math.pi * gone)) / 2
            case "linear":
                return 1 - gone
            case _:
                assert_never(self.schedule)


def make_optimizer(
    name: OptimizerName,
    attached: Attached,
    *,
    learning_rate: float,
    word_learning_rate: float | None = None,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Make the optimizer of the adapter's weights and, in a group without decay, of the words.

    Where bitsandbytes does not work the nearest full-precision optimizer is returned, with a
    warning. Raises TrainingError when prodigy is not installed or is to have two rates.
    """
    groups: list[dict[str, Any]] = [
        {
            "params": attached.adapter_parameters(),
            "lr": learning_rate,
            "weight_decay": weight_decay,
        }
    ]
    if words := attached.word_parameters():
        word_rate = learning_rate if word_learning_rate is None else word_learning_rate
        groups.append({"params": words, "lr": word_rate, "weight_decay": 0.0})
    for group in groups:
        group["full_lr"] = group["lr"]
    return _make(name, groups)


def set_rates(optimizer: Any, factor: float) -> float:
    """Set every group's rate to its own times `factor`; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    return optimizer.param_groups[0]["lr"]


class Average:
    """A running average of the adapter (EMA): what is saved and previewed where there is one.

    Early on the decay is (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage, so
    that a short run is not held at its start.
    """

    def __init__(self, attached: Attached, decay: float) -> None:
        """Begin at the adapter as it is now."""
        self._decay = decay
        self.tensors = {n: p.detach().clone() for n, p in attached.tensors().items()}

    @torch.no_grad()
    def update(self, attached: Attached, step: int) -> None:
        """Take in the adapter after `step`, from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in attached.tensors().items():
            self.tensors[name].lerp_(parameter, 1 - decay)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average."""
        assert state.keys() == self.tensors.keys()
        for name, tensor in self.tensors.items():
            tensor.copy_(state[name])


def _make(name: OptimizerName, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    match name:
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)
        case "prodigy":
            return _prodigy(groups)
        case "adamw8bit" | "paged_adamw8bit" | "lion8bit":
            if reason := eight_bit_fault(name, groups[0]["params"][0].device):
                return _full_precision(name, groups, reason)
            return _eight_bit(name, groups)
        case _:
            assert_never(name)


def _prodigy(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if len({group["lr"] for group in groups}) > 1:
        raise TrainingError(
            "train.word_learning_rate: prodigy finds one rate for all and was given two; expected "
            "the same as train.learning_rate; remove it"
        )
    try:
        from prodigyopt import Prodigy
    except ImportError:
        raise TrainingError(
            "train.optimizer: prodigy is not installed; expected the package prodigyopt; "
            "run `pip install prodigyopt`, or choose adamw8bit"
        ) from None
    return Prodigy(groups, safeguard_warmup=True, use_bias_correction=True)


def _full_precision(
    name: EightBit, groups: list[dict[str, Any]], reason: str
) -> torch.optim.Optimizer:
    nearest = "Lion" if name == "lion8bit" else "AdamW"
    warnings.warn(
        f"train.optimizer: {name} does not work here ({reason}); full-precision {nearest} is used "
        "instead",
        stacklevel=2,
    )
    if name == "lion8bit":
        from customize.training.lion import Lion

        return Lion(groups)
    return torch.optim.AdamW(groups, fused=True)


def _eight_bit(name: EightBit, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make bitsandbytes' optimizer, which keeps 32-bit states for tensors below 4096 elements.

    It waits for the GPU after every tensor, which the fused AdamW of `adamw` does not: the price of
    states a quarter as large.
    """
    hush()
    from bitsandbytes import optim

    match name:
        case "adamw8bit":
            return optim.AdamW8bit(groups)
        case "paged_adamw8bit":
            return optim.PagedAdamW8bit(groups)
        case "lion8bit":
            return optim.Lion8bit(groups)
        case _:
            assert_never(name)


def eight_bit_fault(name: EightBit, device: torch.device) -> str | None:
    """Say why bitsandbytes does not work on `device`, or None, by taking one small step there."""
    trial = torch.nn.Parameter(torch.zeros(4096, device=device))
    trial.grad = torch.ones_like(trial)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _eight_bit(name, [{"params": [trial], "lr": 1e-3}]).step()
    except Exception as error:  # a missing or broken native library raises anything at all
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None
