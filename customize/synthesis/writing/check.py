"""Which edits are worth drawing: changed, new, short enough, and free of blocked words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from customize.synthesis.writing.rewrite import Answer, Rejection, Rewrite

LONGEST_INSTRUCTION = 300
"""Letters; what is longer is a story, not an edit."""

# What may never be drawn unasked; recipes add words of their own or replace the list.
BLOCKED = (
    "nude", "naked", "nsfw", "porn", "pornographic", "sexual", "sexy", "erotic", "rape", "gore",
    "gory", "beheaded", "behead", "suicide", "swastika", "nazi", "terrorist", "lolita",
)  # fmt: skip


@dataclass
class Checker:
    """Judges answers one after another; it remembers what it accepted, to find duplicates.

    `too_long` tells whether the drawing model would cut a caption.
    """

    too_long: Callable[[str], bool] = lambda _: False
    blocked: Iterable[str] = BLOCKED
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepare the search for blocked words: whole words, in any case."""
        words = [re.escape(word) for word in self.blocked]
        self._blocked = re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE) if words else None

    def check(self, answer: Answer) -> Answer:
        """Return an edit that may be drawn as it is, anything else as a rejection."""
        if isinstance(answer, Rejection):
            return answer
        rejection = self._rejection(answer)
        if rejection is None:
            self.remember(answer)
            return answer
        return rejection

    def remember(self, accepted: Rewrite) -> None:
        """Note an edit accepted earlier: the same is a duplicate from now on."""
        self._seen.add((folded(accepted.caption), folded(accepted.edited_caption)))

    def _rejection(self, rewrite: Rewrite) -> Rejection | None:
        caption, edited = rewrite.caption, rewrite.edited_caption
        texts = (caption, rewrite.instruction, edited)
        if folded(caption) == folded(edited):
            return Rejection(caption, "unchanged", edited)
        if (folded(caption), folded(edited)) in self._seen:
            return Rejection(caption, "duplicate", edited)
        if len(rewrite.instruction) > LONGEST_INSTRUCTION:
            return Rejection(caption, "too long", rewrite.instruction[:120])
        if long := next((text for text in (caption, edited) if self.too_long(text)), None):
            return Rejection(caption, "too long", long[:120])
        if self._blocked is not None:
            hit = next((found for text in texts if (found := self._blocked.search(text))), None)
            if hit is not None:
                return Rejection(caption, "blocked word", hit.group().lower())
        return None


def folded(text: str) -> str:
    """Write a caption as it is compared: lower case, words only.

    >>> folded("A  Red dog, running.")
    'a red dog running'
    """
    return " ".join(re.findall(r"\w+", text.lower()))
