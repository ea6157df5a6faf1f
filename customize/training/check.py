"""Everything about a recipe that can be found out without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customize.errors import BaseModelError, PairsError
from customize.families.base import Base, resolve_base
from customize.pairs.find import PairSet, find_pairs
from customize.pairs.lint.lint_pairs import Finding, lint
from customize.recipe import Recipe
from customize.recipe.sections import Concept
from customize.recipe.warnings import warnings
from customize.shapes import Pair


@dataclass(frozen=True)
class Checked:
    """What was found: the pairs of each concept that has any, and all findings, errors first.

    `base` is None where it could not be found, which is an error.
    """

    pairs: dict[str, PairSet]
    findings: list[Finding]
    base: Base | None

    @property
    def has_errors(self) -> bool:
        """Whether training would refuse to start."""
        return any(finding.level == "error" for finding in self.findings)

    def all_pairs(self) -> list[Pair]:
        """List the pairs of all concepts, in the recipe's order."""
        return [pair for found in self.pairs.values() for pair in found.pairs]


def base_of(recipe: Recipe) -> Base:
    """Find the base that a recipe names; raises BaseModelError.

    Where it asks for float32 throughout, `base.precision: auto` is float32 on a GPU too.
    """
    precision = recipe.base.precision
    if precision == "auto" and recipe.train.precision == "no":
        precision = "float32"
    return resolve_base(recipe.base.name, recipe.base.revision, precision)


def check_recipe(recipe: Recipe, base: Base | None = None) -> Checked:
    """Look at the base, the words and every pair of `recipe`; faults become findings.

    `base` is the recipe's own where it was found before.
    """
    findings = [_from_text(text) for text in warnings(recipe)]
    pairs: dict[str, PairSet] = {}
    tokenizer = None
    try:
        base = base or base_of(recipe)
        tokenizer = _tokenizer(base)
    except BaseModelError as error:
        findings.append(Finding("error", "base", *_found_and_cure(str(error))))
    # Without a base no picture is too small: 1 pixel a side will do.
    resolution = recipe.pairs.resolution or (base.resolution if base else 1)
    for concept in recipe.concepts:
        if tokenizer is not None:
            findings += _word_findings(concept, tokenizer)
        try:
            found = find_pairs(concept.pairs)
        except PairsError as error:
            findings += _from_faults(error)
            continue
        pairs[concept.name] = found
        findings += lint(
            found.pairs,
            resolution=resolution,
            word=concept.word,
            alpha_color=recipe.pairs.alpha_color,
            flip=recipe.pairs.flip,
            tokenizer=tokenizer.tokenize if tokenizer else None,
            most_tokens=tokenizer.model_max_length - 2 if tokenizer else None,  # start, end
        )
    findings += _regularization_findings(recipe)
    return Checked(pairs, sorted(findings, key=lambda finding: finding.level != "error"), base)


def _tokenizer(base: Base) -> Any:
    from customize.families.loading.quiet import hush, quiet_loading

    hush()
    from transformers import AutoTokenizer

    with quiet_loading():
        try:
            return AutoTokenizer.from_pretrained(base.folder / "tokenizer")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BaseModelError(
                f"base {base.name!r}: its tokenizer cannot be read ({error}); expected a complete "
                "model folder; download it again"
            ) from None


def _word_findings(concept: Concept, tokenizer: Any) -> list[Finding]:
    """Find what the base's vocabulary says of a concept's word and its initializer."""
    place, found = f"concept {concept.name}", list[Finding]()
    if concept.word and concept.word in tokenizer.get_vocab():
        cure = "choose another word, or the base's own meaning is changed"
        found.append(Finding("error", place, f"{concept.word} is a word of the base already", cure))
    pieces = tokenizer.tokenize(concept.initializer) if concept.initializer else []
    if len(pieces) > 1:
        text = f"its initializer {concept.initializer!r} is broken up into {' '.join(pieces)}"
        found.append(Finding("warning", place, text, "name a plainer word to start from"))
    return found


def _regularization_findings(recipe: Recipe) -> list[Finding]:
    path: Path | None = recipe.preservation.regularization_pairs
    if path is None:
        return []
    try:
        find_pairs(path)
    except PairsError as error:
        return _from_faults(error)
    return []


def _from_faults(error: PairsError) -> list[Finding]:
    return [Finding("error", fault.place, fault.found, fault.cure) for fault in error.faults]


def _from_text(warning: str) -> Finding:
    place, _, rest = warning.partition(": ")
    return Finding("warning", place, *_found_and_cure(rest))


def _found_and_cure(text: str) -> tuple[str, str]:
    """Split a message at its cure, which comes last: `found; expected; cure`."""
    found, _, cure = text.rpartition("; ")
    return found, cure
