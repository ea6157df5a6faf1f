"""Ctrl-C and SIGTERM: finish the step, save, and only then stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch


class Stop:
    """Whether the user or the system asked the run to stop."""

    def __init__(self) -> None:
        """Begin unasked."""
        self.asked = False

    def everywhere(self, accelerator: Any) -> bool:
        """Agree among all processes: one that was asked stops all, or the others would wait."""
        if accelerator.num_processes == 1:
            return self.asked
        asked = torch.tensor(float(self.asked), device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum") > 0)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM instead of dying; a second one acts as usual.

    Only the main thread can take signals; elsewhere nothing is changed.
    """
    stop, usual = Stop(), dict[signal.Signals, Any]()

    def note(number: int, _: FrameType | None) -> None:
        stop.asked = True
        signal.signal(number, usual[signal.Signals(number)])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            usual[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
