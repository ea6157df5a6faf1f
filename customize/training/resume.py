"""A run's way into its checkpoint and back: what every kind of run has in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from customize.adapters import Attached
from customize.errors import TrainingError
from customize.training.checkpoint import (
    Checkpoint,
    changed,
    optimizer_misfit,
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from customize.training.optimizer import Average


class Run(Protocol):
    """What learns, and how far it has come: `done` steps, with the figures of each."""

    accelerator: Any
    attached: Attached
    optimizer: Any
    average: Average | None
    done: int
    history: list[tuple[float, float, float]]


def save_run(
    path: Path, run: Run, shaping: Mapping[str, Any], numbers: Mapping[str, Any] | None = None
) -> None:
    """Write the run's checkpoint, whole or not at all; `numbers` are a run's own, as JSON."""
    scaler = run.accelerator.scaler
    save_checkpoint(
        path,
        Checkpoint(
            step=run.done,
            adapter=run.attached.state(),
            optimizer=optimizer_state(run.optimizer),
            history_SF=torch.tensor(run.history, dtype=torch.float64).reshape(-1, 3),
            average=run.average.tensors if run.average else {},
            shaping=shaping,
            numbers={
                **(numbers or {}),
                "scaler": scaler.state_dict() if scaler is not None else None,
            },
        ),
    )


def restore_run(
    path: Path,
    run: Run,
    shaping: Mapping[str, Any],
    *,
    same: str,
    anew: str,
    free: Collection[str] = (),
) -> Mapping[str, Any]:
    """Bring the run to where the checkpoint at `path` is; returns the numbers stored with it.

    Raises TrainingError when it is damaged, or when what shapes training has changed since, but for
    names that are `free`: the message says to keep the `same` things, and how to begin `anew`.
    """
    saved = read_checkpoint(path)
    then = {place: value for place, value in saved.shaping.items() if place not in free}
    now = {place: value for place, value in shaping.items() if place not in free}
    if differences := changed(then, now):
        raise TrainingError(
            f"{path}: step {saved.step} of this run was trained otherwise "
            f"({'; '.join(differences)}); expected the same {same}; set them back to go on, "
            f"choose another output, or {anew}"
        )
    if misfit := _misfit(saved, run):
        raise TrainingError(
            f"{path}: {misfit}; expected the checkpoint of this very run; "
            f"choose another output, or {anew}"
        )
    run.attached.load(saved.adapter)
    restore_optimizer(run.optimizer, saved.optimizer)
    if run.average is not None:
        run.average.load(saved.average)
    if run.accelerator.scaler is not None and saved.numbers["scaler"]:
        run.accelerator.scaler.load_state_dict(saved.numbers["scaler"])
    run.done = saved.step
    run.history = [(a, b, c) for a, b, c in saved.history_SF.tolist()]
    return saved.numbers


def _misfit(saved: Checkpoint, run: Run) -> str | None:
    """Say what of a checkpoint does not fit the run, None where all does.

    Steps, tensors' names and shapes, and the optimizer's state are looked at before any is used.
    """
    if not 0 < saved.step == len(saved.history_SF):
        return f"it says step {saved.step} and holds the figures of {len(saved.history_SF)} steps"
    learned = run.attached.state()
    for what, tensors in (("adapter", saved.adapter), ("average", saved.average)):
        expected = learned if what == "adapter" or run.average is not None else {}
        if names := sorted(expected.keys() ^ tensors.keys()):
            return f"its {what} lacks or adds {names[0]}"
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                found, wanted = list(tensor.shape), list(expected[name].shape)
                return f"its {what} has {name} of shape {found}, not {wanted}"
            if not bool(tensor.isfinite().all()):
                return f"its {what} has numbers in {name} that are not finite"
    return optimizer_misfit(run.optimizer, saved.optimizer)
