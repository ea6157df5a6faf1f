"""Which tokens of an edited caption stand for which of the first one.

Hertz et al. 2022 (arXiv 2208.01626, section 3.2). One alignment serves for both of the paper's
cases: words swapped are replaced, words added refine.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

Span = tuple[int, int]
"""First token and the one after the last."""


@dataclass(frozen=True)
class Alignment:
    """How attention on one caption's tokens carries over to another's.

    `carried_LM[i, j]` is the share of token i of the first that token j of the second takes up;
    what several tokens had is spread evenly over those that replace them. `aligned_M` is 1 for
    tokens that have a partner, 0 for those added. `first_L` and `second_M` mark the tokens of words
    that changed.
    """

    carried_LM: Tensor
    aligned_M: Tensor
    first_L: Tensor
    second_M: Tensor


def align(tokenizer: Any, first: str, second: str) -> Alignment:
    """Align two captions word by word, then token by token, at the tokenizer's own length."""
    length = tokenizer.model_max_length
    words, spans = _tokens(tokenizer, first)
    other_words, other_spans = _tokens(tokenizer, second)
    carried_LM, aligned_M = torch.zeros(length, length), torch.zeros(length)
    first_L, second_M = torch.zeros(length), torch.zeros(length)
    carried_LM[0, 0] = aligned_M[0] = 1  # the start token

    def carry(one: Span, other: Span) -> None:
        (a, b), (c, d) = _cut(one, length), _cut(other, length)
        if b == a or d == c:
            return
        if b - a == d - c:
            carried_LM[range(a, b), range(c, d)] = 1
        else:
            carried_LM[a:b, c:d] = 1 / (d - c)
        aligned_M[c:d] = 1

    compared = SequenceMatcher(None, words, other_words, autojunk=False)
    for kind, i, j, k, m in compared.get_opcodes():
        if kind == "equal":
            for one, other in zip(spans[i:j], other_spans[k:m], strict=True):
                carry(one, other)
            continue
        one, other = _joined(spans[i:j]), _joined(other_spans[k:m])
        for marked, (a, b) in ((first_L, one), (second_M, other)):
            marked[_cut((a, b), length)[0] : _cut((a, b), length)[1]] = 1
        carry(one, other)
    ends = min(_end(spans), length - 1), min(_end(other_spans), length - 1)
    both = min(length - ends[0], length - ends[1])
    carried_LM[range(ends[0], ends[0] + both), range(ends[1], ends[1] + both)] = 1
    aligned_M[ends[1] : ends[1] + both] = 1  # the end token and the padding after it
    return Alignment(carried_LM, aligned_M, first_L, second_M)


def _tokens(tokenizer: Any, caption: str) -> tuple[list[str], list[Span]]:
    """Return the caption's words and the tokens each of them takes up, the start token before."""
    words = caption.lower().split()
    spans, place = list[Span](), 1
    for word in words:
        count = len(tokenizer(word, add_special_tokens=False)["input_ids"])
        spans.append((place, place + count))
        place += count
    return words, spans


def _joined(spans: list[Span]) -> Span:
    return (spans[0][0], spans[-1][1]) if spans else (0, 0)


def _end(spans: list[Span]) -> int:
    """Return where the end token stands, were the text not cut."""
    return spans[-1][1] if spans else 1


def _cut(span: Span, length: int) -> Span:
    """Keep what a text encoder of `length` tokens reads; the last one is always the end token."""
    return min(span[0], length - 1), min(span[1], length - 1)
