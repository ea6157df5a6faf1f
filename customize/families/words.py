"""The new words of concepts, as tokenizers and instructions see them.

A word of several vectors is several tokens, `<w> <w>_1 <w>_2`: the names diffusers' textual
inversion uses, so that its pipelines expand the word by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from customize.errors import BaseModelError


@dataclass(frozen=True)
class Word:
    """One new word: its text like `<my-dog>`, the known words it starts from, its vectors."""

    text: str
    initializer: str | None = None
    vectors: int = 1

    @property
    def tokens(self) -> tuple[str, ...]:
        """Name the word's tokens.

        >>> Word("<my-dog>", vectors=3).tokens
        ('<my-dog>', '<my-dog>_1', '<my-dog>_2')
        """
        return (self.text, *(f"{self.text}_{index}" for index in range(1, self.vectors)))

    @property
    def plain(self) -> str:
        """Say the word as text that any base can read: an identifier and its class.

        As DreamBooth names its subjects (arXiv 2208.12242, sec. 3.1).

        >>> Word("<my-dog>", "dog").plain, Word("<aqua>", "style").plain
        ('my-dog', 'aqua style')
        """
        name = self.text.strip("<>")
        known = self.initializer is None or self.initializer in re.split("[-_]", name)
        return name if known else f"{name} {self.initializer}"


def expand_words(instruction: str, words: Sequence[Word]) -> str:
    """Write every token of the words an instruction names.

    >>> expand_words("add <my-dog>", [Word("<my-dog>", vectors=2)])
    'add <my-dog> <my-dog>_1'
    """
    return replace_words(instruction, {word.text: " ".join(word.tokens) for word in words})


def replace_words(text: str, table: Mapping[str, str]) -> str:
    """Write each word of the table, in whatever case it stands there, as the table says.

    All at once, the longest first: what was written is not read again.

    >>> replace_words("add <My-Dog> to <my-dog-2>", {"<my-dog>": "<my-dog-2>", "<my-dog-2>": "it"})
    'add <my-dog-2> to it'
    """
    lowered = {old.lower(): new for old, new in table.items()}
    words = sorted(lowered, key=len, reverse=True)
    pattern = "|".join(map(re.escape, words)) or r"(?!)"

    def written(found: re.Match[str]) -> str:
        return lowered.get(found[0].lower(), found[0])

    return re.sub(pattern, written, text, flags=re.IGNORECASE)


def add_words(tokenizer: Any, words: Sequence[Word]) -> int:
    """Add the words' tokens to the tokenizer in order and return the first's id; others follow.

    Raises BaseModelError for a word that is there already: teaching it would change what the base
    knows.
    """
    first = len(tokenizer)
    known = tokenizer.get_vocab()
    for word in words:
        taken = [token for token in word.tokens if token.lower() in known]
        if taken:
            raise BaseModelError(
                f"word {word.text!r}: {taken[0]!r} is already in the base's vocabulary or named "
                "twice; expected a new word",
                "choose another, such as '<my-dog>'",
            )
        known |= dict.fromkeys(word.tokens, 0)
    tokens = [token for word in words for token in word.tokens]
    added = tokenizer.add_tokens(tokens)
    assert added == len(tokens), (added, tokens)
    assert tokenizer.convert_tokens_to_ids(tokens) == [*range(first, first + added)]
    return first
