"""Numbers on the command line, each within its range."""

from __future__ import annotations

import argparse

from customize.errors import SynthesisError


def check_ranges(arguments: argparse.Namespace, **ranges: tuple[float, float]) -> None:
    """Refuse numbers out of range; raises SynthesisError."""
    for name, (least, most) in ranges.items():
        if not least <= (value := getattr(arguments, name)) <= most:
            raise SynthesisError(f"--{name} {value}: expected {least:g} to {most:g}; correct it")
