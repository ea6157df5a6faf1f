"""Everything that may be wrong with pairs that were found, before time is spent on them."""

from __future__ import annotations

from collections.abc import Sequence

from customize.errors import Finding
from customize.pairs.lint.pictures import (
    copy_findings,
    duplicate_findings,
    look_at_all,
    size_findings,
)
from customize.pairs.lint.reversed import reversed_findings
from customize.pairs.lint.words import Tokenizer, instruction_findings, token_findings
from customize.shapes import Pair

FEWEST = 3


def lint(
    pairs: Sequence[Pair],
    *,
    resolution: int,
    word: str | None = None,
    alpha_color: str = "#ffffff",
    flip: bool = False,
    tokenizer: Tokenizer | None = None,
    most_tokens: int | None = None,
) -> list[Finding]:
    """Return the findings on one concept's pairs, errors first; every picture is read once.

    `word` is the concept's, such as `<my-dog>`; `tokenizer` gives a text's tokens without start and
    end marks, and `most_tokens` is how many of those the base reads.
    """
    if not pairs:
        return [Finding("error", "pairs", "none", "give three to five pairs")]
    seen, findings = look_at_all(pairs, alpha_color)
    if len(pairs) < FEWEST:
        found = f"only {len(pairs)} of the {FEWEST} to 5 pairs a concept needs"
        findings.append(
            Finding("warning", "pairs", found, "add pairs, or expect it to learn by heart")
        )
    findings += size_findings(seen, resolution)
    findings += copy_findings(seen)
    findings += duplicate_findings(seen)
    findings += reversed_findings(seen)
    findings += instruction_findings(pairs, word, flip)
    if tokenizer is not None:
        findings += token_findings(pairs, word, tokenizer, most_tokens)
    return sorted(findings, key=lambda finding: finding.level != "error")
