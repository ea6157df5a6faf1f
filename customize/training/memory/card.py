"""How much memory a named card leaves to a program; needs no torch."""

from __future__ import annotations

import re

from customize.errors import Fault, RecipeError

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
        fault = Fault("--card", f"found {text!r}", "write its memory, such as 8GB, or `here`")
        raise RecipeError("command line", [fault])
    return int(float(size[1]) * GIGABYTE * RESERVED)
