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
from customize.training.optimizer_state import OptimizerState, named_under, optimizer_misfit

VERSION = 2
KEY = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` optimizer steps.

    `shaping` is what the recipe and pairs said of training, by dotted name; `history_SF` the
    figures of every step so far; `best` the adapter after an earlier step, where the run may come
    back to one; `numbers` other JSON values that go along.
    """

    step: int
    adapter: Mapping[str, Tensor]
    optimizer: OptimizerState
    history_SF: Tensor
    average: Mapping[str, Tensor] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    shaping: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path`, whole or not at all."""
    tensors = {
        **{f"adapter/{name}": tensor for name, tensor in checkpoint.adapter.items()},
        **{f"average/{name}": tensor for name, tensor in checkpoint.average.items()},
        **{f"best/{name}": tensor for name, tensor in checkpoint.best.items()},
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
            adapter=named_under(tensors, "adapter"),
            average=named_under(tensors, "average"),
            best=named_under(tensors, "best"),
            optimizer=OptimizerState(named_under(tensors, "optimizer"), facts["optimizer"]),
            history_SF=tensors["history"],
            shaping=facts["shaping"],
            numbers=facts["numbers"],
        )
    except (OSError, DamagedError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path}: it is damaged or foreign ({error}); expected the checkpoint as it was "
            "written; copy it back from where it is whole, or delete it to begin anew"
        ) from None


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List what shapes training and is not as it was, as `place: old -> new`."""
    places = [place for place in {**then, **now} if then.get(place) != now.get(place)]
    return [f"{place}: {then.get(place)} -> {now.get(place)}" for place in places]


def misfit(
    saved: Checkpoint,
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    averaged: bool,
) -> str | None:
    """Say what of a checkpoint does not fit a run, None where all does.

    Steps, tensors' names and shapes, and the optimizer's state are looked at before any is used.
    """
    if not 0 < saved.step == len(saved.history_SF):
        return f"it says step {saved.step} and holds the figures of {len(saved.history_SF)} steps"
    expected_of = {"adapter": True, "average": averaged, "best": bool(saved.best)}
    held = {"adapter": saved.adapter, "average": saved.average, "best": saved.best}
    for what, tensors in held.items():
        expected = learned if expected_of[what] else {}
        if names := sorted(expected.keys() ^ tensors.keys()):
            return f"its {what} lacks or adds {names[0]}"
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                found, wanted = list(tensor.shape), list(expected[name].shape)
                return f"its {what} has {name} of shape {found}, not {wanted}"
            if not bool(tensor.isfinite().all()):
                return f"its {what} has numbers in {name} that are not finite"
    return optimizer_misfit(optimizer, saved.optimizer)
