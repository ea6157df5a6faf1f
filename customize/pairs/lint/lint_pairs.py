"""Everything that may be wrong with pairs that were found, before time is spent on them."""

from __future__ import annotations

from collections.abc import Sequence

from customize.errors import Fault
from customize.pairs.lint.misaligned import alignment_faults
from customize.pairs.lint.pictures import (
    copy_faults,
    duplicate_faults,
    look_at_all,
    size_faults,
    whole_change_faults,
)
from customize.pairs.lint.reversed import reversed_faults
from customize.pairs.lint.words import Tokenizer, instruction_faults, token_faults
from customize.shapes import Pair

FEWEST = 3


def lint(
    pairs: Sequence[Pair],
    *,
    resolution: int,
    word: str | None = None,
    alpha_color: str = "#ffffff",
    flip: bool = False,
    recolored: int = 0,
    tokenizer: Tokenizer | None = None,
    most_tokens: int | None = None,
) -> list[Fault]:
    """Return the faults of one concept's pairs, errors first; every picture is read once.

    `word` is the concept's, such as `<my-dog>`; `tokenizer` gives a text's tokens without start and
    end marks, and `most_tokens` is how many of those the base reads.
    """
    if not pairs:
        return [Fault("pairs", "none", "give three to five pairs")]
    seen, faults = look_at_all(pairs, alpha_color)
    if len(pairs) < FEWEST:
        found = f"only {len(pairs)} of the {FEWEST} to 5 pairs a concept needs"
        faults.append(Fault("pairs", found, "add pairs, or expect it to learn by heart", "warning"))
    faults += size_faults(seen, resolution)
    faults += copy_faults(seen)
    faults += duplicate_faults(seen)
    faults += reversed_faults(seen)
    if recolored:
        faults += whole_change_faults(seen)
    faults += alignment_faults(pairs, alpha_color)
    faults += instruction_faults(pairs, word, flip)
    if tokenizer is not None:
        faults += token_faults(pairs, word, tokenizer, most_tokens)
    return sorted(faults, key=lambda fault: fault.level != "error")
