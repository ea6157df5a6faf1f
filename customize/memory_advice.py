"""What a run's expected memory means to its user: the figures, and what to turn on for a card."""

from __future__ import annotations

import re
from dataclasses import replace

from customize.errors import Fault, RecipeError
from customize.estimating import Estimate, estimate
from customize.memory_load import Load

GIGABYTE = 2**30
"""Of the size printed on a card, which is what the drivers give nearly."""
RESERVED = 0.94
"""The share of a card's memory that is left to a program: the context takes about half a GB."""


def card_bytes(text: str) -> int:
    """Read a card's memory, such as `8GB`; raises RecipeError for anything else.

    >>> card_bytes("8GB") == card_bytes("8 gb") == card_bytes("8")
    True
    """
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:gb|gib|g)?", text.strip().lower())
    if size is None or float(size[1]) <= 0:
        fault = Fault("--card", f"found {text!r}", "write its memory, such as 8GB")
        raise RecipeError("command line", [fault])
    return int(float(size[1]) * GIGABYTE * RESERVED)


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
    found = smallest_change(load, room)
    if found is None:
        cure = "lower pairs.resolution, choose a smaller base or a larger card"
        return [*lines, f"it does not fit into {_gigabytes(room)}; {cure}"]
    settings, then = found
    return [*lines, f"to fit into {_gigabytes(room)} set {settings}: {_gigabytes(then.peak)}"]


def smallest_change(load: Load, room: int) -> tuple[str, Estimate] | None:
    """Find the settings that bring `load` into `room` bytes at the least cost in time, and their
    estimate; None where nothing suffices.

    Smaller batches accumulated learn the same in hardly more time; recomputing takes a third more;
    quantized weights are the only ones that change what is learned; offloaded ones come last, being
    copied at every use.
    """
    batches = [load.batch]
    while batches[-1] > 1:
        batches.append(batches[-1] // 2)
    recomputing = replace(load, checkpointing=True)
    four_bits = replace(recomputing, quantization="nf4", offload=False)
    offloaded = replace(recomputing, quantization="none", offload=True)
    for changed in dict.fromkeys((load, recomputing, four_bits, offloaded)):
        for batch in batches:
            candidate = replace(changed, batch=batch)
            found = estimate(candidate)
            if found.encoding_peak > room:
                return None
            if found.peak <= room:
                return _said(load, candidate), found
    return None


def _said(load: Load, changed: Load) -> str:
    """Name the recipe's fields in which two loads differ."""
    parts = list[str]()
    if changed.batch < load.batch:
        times = -(-load.batch // changed.batch)
        parts.append(f"train.batch: {changed.batch} with {times} times the train.accumulation")
    if changed.checkpointing and not load.checkpointing:
        parts.append("train.gradient_checkpointing: true")
    if changed.quantization != load.quantization:
        parts.append(f"base.quantization: {changed.quantization}")
    if changed.offload != load.offload:
        parts.append(f"base.offload: {str(changed.offload).lower()}")
    return " and ".join(parts)


def _gigabytes(count: int) -> str:
    return f"{count / GIGABYTE:.2f} GB"
