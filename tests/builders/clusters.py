"""What runs on a Ray cluster of this machine."""

from __future__ import annotations

import psutil


def worker_processes(actor: str) -> list[int]:
    """Return this test's own processes that run an actor of this name."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if actor in " ".join(child.cmdline())]
