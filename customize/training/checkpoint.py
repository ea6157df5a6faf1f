"""The private state of one run, from which it goes on as if it had never stopped.

One safetensors file: tensors, and the rest as JSON in its metadata; no pickle. It is written whole
under another name, flushed to the disk and renamed, so that a kill at any moment leaves either the
old one or the new one; its checksum is checked before anything in it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from customize.errors import TrainingError
from customize.files.tensors import DamagedError, read_tensors, save_tensors

VERSION = 2
KEY = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` optimizer steps.

    `shaping` is what the recipe and pairs said of training, by dotted name; `history_SF` the
    figures of every step so far; `numbers` other JSON values that go along.
    """

    step: int
    adapter: Mapping[str, Tensor]
    optimizer: OptimizerState
    history_SF: Tensor
    average: Mapping[str, Tensor] = field(default_factory=dict)
    shaping: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)


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
    _begin_states(optimizer, state)
    for place, values in _places(optimizer, every=True):
        for name, value in _under(state.tensors, place).items():
            if isinstance(held := values.get(name), Tensor) and held.dtype == value.dtype:
                held.copy_(value)
            else:
                values[name] = value.to(_device(optimizer))
        values.update(_under(state.numbers, place))


def optimizer_misfit(optimizer: torch.optim.Optimizer, state: OptimizerState) -> str | None:
    """Say what of a state is not of an optimizer's parameters, None where all is."""
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    known = {str(index) for index in range(len(parameters))}
    known |= {f"group {index}" for index in range(len(groups))}
    if odd := sorted({name.partition("/")[0] for name in (*state.tensors, *state.numbers)} - known):
        return f"its optimizer state is of a parameter {odd[0]!r} that is not learned"
    for index, parameter in enumerate(parameters):
        for name, tensor in _under(state.tensors, str(index)).items():
            # 8-bit optimizers hold a state of the parameter's size, and one scale for each block.
            if tensor.shape != parameter.shape and tensor.numel() > max(256, parameter.numel()):
                return f"its optimizer state {index}/{name} has shape {list(tensor.shape)}"
    return None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path`, whole or not at all."""
    tensors = {
        **{f"adapter/{name}": tensor for name, tensor in checkpoint.adapter.items()},
        **{f"average/{name}": tensor for name, tensor in checkpoint.average.items()},
        **{f"optimizer/{name}": tensor for name, tensor in checkpoint.optimizer.tensors.items()},
        "history": checkpoint.history_SF,
    }
    facts = {
        "version": VERSION,
        "step": checkpoint.step,
        "shaping": checkpoint.shaping,
        "numbers": checkpoint.numbers,
        "optimizer": checkpoint.optimizer.numbers,
    }
    save_tensors(path, tensors, facts, key=KEY, flush=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back; raises TrainingError for a damaged or foreign file."""
    try:
        tensors, facts = read_tensors(path, key=KEY)
        if facts["version"] != VERSION:
            raise ValueError(f"version {facts['version']}")
        return Checkpoint(
            step=facts["step"],
            adapter=_under(tensors, "adapter"),
            average=_under(tensors, "average"),
            optimizer=OptimizerState(_under(tensors, "optimizer"), facts["optimizer"]),
            history_SF=tensors["history"],
            shaping=facts["shaping"],
            numbers=facts["numbers"],
        )
    except (OSError, DamagedError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path}: it is damaged or foreign ({error}); expected the checkpoint as it was "
            "written; copy it back from where it is whole, or begin anew with --overwrite"
        ) from None


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List what shapes training and is not as it was, as `place: old -> new`."""
    places = [place for place in {**then, **now} if then.get(place) != now.get(place)]
    return [f"{place}: {then.get(place)} -> {now.get(place)}" for place in places]


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
            if _under(state.tensors, str(place)):
                optimizer.init_state(group, parameter, group_index, index)
            place += 1


def _device(optimizer: torch.optim.Optimizer) -> torch.device:
    return optimizer.param_groups[0]["params"][0].device


def _under(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    start = f"{place}/"
    return {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
