"""What a run's expected memory means to its user: the figures, and what to turn on for a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from customize.training.memory.card import GIGABYTE
from customize.training.memory.estimate import Estimate, estimate
from customize.training.memory.workload import Load

CURES: tuple[Mapping[str, Any], ...] = (
    {"optimizer": "adamw8bit"},
    {"checkpointing": True},
    {"quantization": "nf4", "offload": False},
    {"quantization": "none", "offload": True},
)
"""What needs less memory besides a smaller batch, as changes of a `Load`, the least costly first.

Smaller batches accumulated learn the same in hardly more time; states in 8 bits nearly the same;
recomputing takes a third more; quantized weights are the only ones that change what is learned
from; offloaded ones come last, being copied at every use.
"""


def advise(load: Load, room: int | None) -> list[str]:
    """Say what `load` is expected to take and, with `room` in bytes, how it can fit into it."""
    expected = estimate(load)
    place = "GPU memory" if load.device == "cuda" else "memory beside the libraries"
    lines = [
        f"expected peak of {place}: {_gigabytes(expected.peak)} (encoding "
        f"{_gigabytes(expected.encoding_peak)}, then weights {_gigabytes(expected.weights)}, "
        f"adapter {_gigabytes(expected.adapter)}, optimizer {_gigabytes(expected.optimizer)}, "
        f"a step of {load.batch} samples {_gigabytes(expected.step)})"
    ]
    if room is None:
        return lines
    if expected.peak <= room:
        return [*lines, f"it fits: {_gigabytes(room)} are free on such a card"]
    too_much = f"it does not fit into {_gigabytes(room)}"
    if expected.encoding_peak > room:
        cure = "lower pairs.resolution, which alone lessens that, or choose a larger card"
        return [*lines, f"{too_much} to encode the pictures, before any step; {cure}"]
    found = smallest_change(load, room)
    if found is None:
        cure = "lower pairs.resolution, choose a smaller base or a larger card"
        return [*lines, f"{too_much}; {cure}"]
    settings, then = found
    return [*lines, f"to fit into {_gigabytes(room)} set {settings}: {_gigabytes(then.peak)}"]


def smallest_change(load: Load, room: int) -> tuple[str, Estimate] | None:
    """Find the settings that bring `load`, which is too large, into `room` bytes at the least cost
    in time, and their estimate; None where nothing suffices.
    """
    changed = [load]
    for cure in CURES:
        changed.append(replace(changed[-1], **cure) if _applies(cure, load) else changed[-1])
    candidates = [replace(each, batch=n) for each in changed for n in _halved(load.batch)]
    for candidate in [each for each in dict.fromkeys(candidates) if each != load]:
        found = estimate(candidate)
        if found.encoding_peak > room:
            return None
        if found.peak <= room:
            return _said(load, candidate), found
    return None


def smaller_settings(load: Load) -> list[str]:
    """List the settings by which each alone `load` would need less memory, least costly first."""
    halved = [replace(load, batch=n) for n in _halved(load.batch)[1:2]]
    changed = [replace(load, **cure) for cure in CURES if _applies(cure, load)]
    return [_said(load, each) for each in (*halved, *changed) if each != load]


def _halved(batch: int) -> list[int]:
    """Halve a batch down to 1, itself first.

    >>> _halved(6)
    [6, 3, 1]
    """
    return [batch, *_halved(batch // 2)] if batch > 1 else [batch]


def _applies(cure: Mapping[str, Any], load: Load) -> bool:
    """Tell whether a cure lessens anything: only a GPU has something to offload, and what is
    offloaded takes less than in 4 bits. Other optimizers would need another rate.
    """
    if "optimizer" in cure:
        return load.optimizer == "adamw"
    if "offload" in cure:
        return not load.offload and (load.device == "cuda" or not cure["offload"])
    return True


def _said(load: Load, changed: Load) -> str:
    """Name the recipe's fields in which two loads differ."""
    parts = list[str]()
    if changed.batch < load.batch:
        times = -(-load.batch // changed.batch)
        parts.append(f"train.batch: {changed.batch} with {times} times the train.accumulation")
    if changed.optimizer != load.optimizer:
        parts.append(f"train.optimizer: {changed.optimizer}")
    if changed.checkpointing and not load.checkpointing:
        parts.append("train.gradient_checkpointing: true")
    if changed.quantization != load.quantization:
        parts.append(f"base.quantization: {changed.quantization}")
    if changed.offload != load.offload:
        parts.append(f"base.offload: {str(changed.offload).lower()}")
    return " and ".join(parts)


def _gigabytes(count: int) -> str:
    return f"{count / GIGABYTE:.2f} GB"
