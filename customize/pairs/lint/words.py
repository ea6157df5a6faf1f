"""Faults in what the instructions say: concept words, unknown words, left and right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from customize.errors import Fault
from customize.shapes import Pair

Tokenizer = Callable[[str], list[str]]
"""Text to its tokens, without the start and end marks."""

COMMON = frozenset([
    "a", "an", "the", "it", "its", "this", "that", "to", "in", "on", "of", "with", "and",
    "make", "turn", "into", "as", "at", "by", "for", "from",
])  # fmt: skip


def instruction_faults(pairs: Sequence[Pair], word: str | None, flip: bool) -> Iterator[Fault]:
    """Yield faults in the instructions alone; `word` is the concept's, such as `<my-dog>`."""
    for pair in pairs:
        if not pair.instruction.strip():
            yield Fault(pair.place, "no instruction", "write what to do to the picture")
    said = [pair for pair in pairs if pair.instruction.strip()]
    if word is not None:
        yield from _concept_word(said, word)
    known = {word} if word else set[str]()
    for strange in sorted({w for pair in said for w in _marked(pair.instruction)} - known):
        found = f"{strange} is no concept's word"
        cure = (
            f"write {word}"
            if word
            else f"set the concept's word to {strange!r}, or use plain words"
        )
        yield Fault(_places(said, strange), found, cure, "warning")
    if len(said) >= 3 and _all_different(said):
        found = "no word is common to all instructions"
        cure = "say the edit in like words, or name it by the concept's word"
        yield Fault("instructions", found, cure, "warning")
    if flip:
        for pair in said:
            if re.search(r"\b(left|right)\b(?!\s+(now|away|angle))", pair.instruction.lower()):
                found = "says left or right, but pairs are also trained mirrored"
                yield Fault(pair.place, found, "set flip: false", "warning")


def token_faults(
    pairs: Sequence[Pair], word: str | None, tokenizer: Tokenizer, most_tokens: int | None
) -> Iterator[Fault]:
    """Yield words the base's tokenizer breaks up, and instructions longer than it reads."""
    texts = {pair.instruction: pair for pair in pairs if pair.instruction.strip()}
    words = {
        w for text in texts for w in re.findall(r"[^\W\d_]+", re.sub(r"<[^>]*>", " ", text.lower()))
    }
    for broken in sorted(words):
        pieces = tokenizer(broken)
        if len(pieces) > 1:
            found = f"{broken!r} is not in the base's vocabulary: read as {' '.join(pieces)}"
            cure = "use a plainer word, or a concept word for it"
            yield Fault(_places(pairs, broken), found, cure, "warning")
    for text, pair in texts.items():
        plain = text.replace(word, "it") if word else text
        if most_tokens is not None and (count := len(tokenizer(plain))) > most_tokens:
            found = f"{count} tokens, of which the base reads the first {most_tokens}"
            yield Fault(pair.place, found, "say it shorter", "warning")


def _concept_word(said: Sequence[Pair], word: str) -> Iterator[Fault]:
    without = [pair for pair in said if word not in pair.instruction]
    if said and len(without) == len(said):
        found = f"{word} is in none of the {len(said)} instructions, so it would learn nothing"
        yield Fault("instructions", found, f"write {word} where the concept is meant")
    elif without:
        found = f"{word} is not in {len(without)} of {len(said)} instructions"
        places = ", ".join(pair.place for pair in without[:3])
        yield Fault(places, found, f"write {word} there too if the concept is meant", "warning")


def _marked(text: str) -> list[str]:
    return re.findall(r"<[\w-]+>", text)


def _all_different(said: Sequence[Pair]) -> bool:
    words = [set(re.findall(r"<[^>]+>|\w+", pair.instruction.lower())) - COMMON for pair in said]
    return not set.intersection(*words)


def _places(pairs: Sequence[Pair], text: str) -> str:
    places = [pair.place for pair in pairs if text.lower() in pair.instruction.lower()]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more
