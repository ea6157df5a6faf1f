"""An optimizer's state as tensors and numbers by name, and back into an optimizer, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class OptimizerState:
    """An optimizer's tensors under `parameter/name`, and its numbers, by parameter and by group."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


def optimizer_state(optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Copy an optimizer's whole state to the CPU, 8-bit tensors as they are."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for place, values in _places(optimizer):
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{place}/{name}"] = value.detach().cpu().clone().contiguous()
            elif isinstance(value, int | float | None):
                numbers[f"{place}/{name}"] = value
    return OptimizerState(tensors, numbers)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """Give a new optimizer of the same parameters the state of the old one, bit for bit.

    torch's own `load_state_dict` would cast, and bitsandbytes' would leave its paged memory.
    """
    device = optimizer.param_groups[0]["params"][0].device
    _begin_states(optimizer, state)
    for place, values in _places(optimizer, every=True):
        for name, value in named_under(state.tensors, place).items():
            if isinstance(held := values.get(name), Tensor) and held.dtype == value.dtype:
                held.copy_(value)
            else:
                values[name] = value.to(device)
        values.update(named_under(state.numbers, place))


def optimizer_misfit(optimizer: torch.optim.Optimizer, state: OptimizerState) -> str | None:
    """Say what of a state is not of an optimizer's parameters, None where all is."""
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    known = {str(index) for index in range(len(parameters))}
    known |= {f"group {index}" for index in range(len(groups))}
    if odd := sorted({name.partition("/")[0] for name in (*state.tensors, *state.numbers)} - known):
        return f"its optimizer state is of a parameter {odd[0]!r} that is not learned"
    for index, parameter in enumerate(parameters):
        for name, tensor in named_under(state.tensors, str(index)).items():
            # 8-bit optimizers hold a state of the parameter's size, and one scale for each block.
            if tensor.shape != parameter.shape and tensor.numel() > max(256, parameter.numel()):
                return f"its optimizer state {index}/{name} has shape {list(tensor.shape)}"
    return None


def named_under(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Take the values whose names begin with `place/`, by the rest of their names."""
    start = f"{place}/"
    return {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}


def _places(
    optimizer: torch.optim.Optimizer, *, every: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """Name each parameter's and each group's values; `every` begins those not there yet."""
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    states = [(str(i), p) for i, p in enumerate(parameters) if every or p in optimizer.state]
    named = [(place, optimizer.state[parameter]) for place, parameter in states]
    return [*named, *((f"group {i}", group) for i, group in enumerate(groups))]


def _begin_states(optimizer: Any, state: OptimizerState) -> None:
    """Let bitsandbytes lay out its states itself: paged ones live in memory of their own kind."""
    if not hasattr(optimizer, "init_state"):
        return
    place = 0
    for group_index, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if named_under(state.tensors, str(place)):
                optimizer.init_state(group, parameter, group_index, index)
            place += 1
