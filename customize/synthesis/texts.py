"""First stage: captions to checked edits, group by group, each group written down as it is done."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from customize.synthesis.output.journal import Journal
from customize.synthesis.writing.check import Checker
from customize.synthesis.writing.rewrite import Answer, Rejection, Rewrite, Writer

A_GROUP = 8
"""Prompts that are written, drawn and written down together: what a kill costs at most."""


@dataclass(frozen=True)
class Prompts:
    """A group: the number of its first prompt, and what became of each caption."""

    first: int
    answers: tuple[Answer, ...]

    def edits(self) -> list[tuple[int, Rewrite]]:
        """List the usable edits with their prompts' numbers."""
        numbered = enumerate(self.answers, self.first)
        return [(number, answer) for number, answer in numbered if isinstance(answer, Rewrite)]


class TextStage:
    """Writes a run's prompts in order; what the journal holds is taken from there.

    Prompt p edits caption p // edits_each, by the randomness of (seed, p).
    """

    def __init__(
        self,
        writer: Writer,
        checker: Checker,
        captions: Sequence[str],
        journal: Journal,
        *,
        edits_each: int,
        seed: int,
    ) -> None:
        """Take everything open; duplicates of what the journal holds are found too."""
        self._writer, self._checker, self._journal = writer, checker, journal
        self._captions, self._each, self._seed = captions, edits_each, seed
        for piece in journal.pieces:
            for answer in _read(piece).answers:
                if isinstance(answer, Rewrite):
                    checker.remember(answer)

    def __len__(self) -> int:
        """Count the groups."""
        return -(-len(self._captions) * self._each // A_GROUP)

    def groups(self, start: int, stop: int | None = None) -> Generator[Prompts]:
        """Yield the groups from number `start` on, to before `stop` where it is given.

        A writer that works elsewhere writes the next one while the caller draws this one; close the
        generator to wait for that.
        """
        numbers = range(start, min(len(self), len(self) if stop is None else stop))
        if not self._writer.waits:
            yield from map(self._group, numbers)
            return
        with ThreadPoolExecutor(1) as ahead:
            coming: Future[Prompts] | None = None
            for number in numbers:
                prompts = coming.result() if coming else self._group(number)
                more = number + 1 in numbers
                coming = ahead.submit(self._group, number + 1) if more else None
                yield prompts

    def rejections(self, groups: int) -> list[Rejection]:
        """List the captions without an edit in the first `groups` groups."""
        answers = (a for piece in self._journal.pieces[:groups] for a in _read(piece).answers)
        return [answer for answer in answers if isinstance(answer, Rejection)]

    def _group(self, number: int) -> Prompts:
        if number < len(self._journal.pieces):
            return _read(self._journal.pieces[number])
        assert number == len(self._journal.pieces), "groups are written in order"
        first = number * A_GROUP
        prompts = range(first, min(first + A_GROUP, len(self._captions) * self._each))
        captions = [self._captions[prompt // self._each] for prompt in prompts]
        seeds = [_seed(self._seed, prompt) for prompt in prompts]
        answers = tuple(self._checker.check(a) for a in self._writer.write(captions, seeds))
        self._journal.append({"first": first, "answers": [asdict(answer) for answer in answers]})
        return Prompts(first, answers)


def _seed(seed: int, prompt: int) -> int:
    return int(np.random.default_rng((seed, 9, prompt)).integers(2**31))


def _read(piece: Mapping[str, Any]) -> Prompts:
    answers = [
        Rejection(**answer) if "reason" in answer else Rewrite(**answer)
        for answer in piece["answers"]
    ]
    return Prompts(piece["first"], tuple(answers))
