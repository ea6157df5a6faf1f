"""Which combinations of words are never drawn for training, so that tests can ask for them."""

from __future__ import annotations

import hashlib


def is_held_out(*words: str | None) -> bool:
    """Tell whether a combination of words (thing and colour, wording and colour, one thing for
    another) is kept for testing.

    About one combination in ten, by a hash, so that the split never depends on the order of
    drawing.
    """
    digest = hashlib.sha256(" ".join(str(word) for word in words).encode()).digest()
    return digest[0] < 26
