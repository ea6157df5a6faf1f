"""Teach a frozen text encoder new words: rows beside its embedding table, which alone learn.

The idea is textual inversion (Gal et al. 2022, arXiv 2208.01618); usual trainers resize the table
and undo the optimizer's work on the old rows after each step, here the old rows are simply not
trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from customize.errors import BaseModelError
from customize.families.words import Word, add_words

PREFIX = "words."
_SPREAD = 0.1


class WordEmbedding(nn.Embedding):
    """The base's embedding table, sharing its tensor, and float32 rows of its own from id `first`.

    Being an `nn.Embedding` itself it keeps the base's name in state dicts. While `enabled` is off,
    the new ids read as the unknown word (the base's last row), so that the frozen table alone
    decides.
    """

    def __init__(self, base: nn.Embedding, words: Mapping[str, Tensor], first: int) -> None:
        """Wrap `base`; `words` holds each word's starting rows (vectors, D)."""
        rows, width = base.weight.shape
        super().__init__(rows, width, _weight=base.weight, _freeze=True)
        self.words = nn.ParameterList(nn.Parameter(vectors_ND) for vectors_ND in words.values())
        self.first, self.enabled = first, True

    def forward(self, input: Tensor) -> Tensor:
        """Look ids up, (B, L) to (B, L, D) in the table's precision."""
        is_word = input >= self.first
        known = F.embedding(input.masked_fill(is_word, self.first - 1), self.weight)
        if not self.enabled:
            return known
        learned_ND = torch.cat(list(self.words)).to(known.dtype)
        taught = F.embedding((input - self.first).clamp(min=0), learned_ND)
        return torch.where(is_word[..., None], taught, known)


class WordRows:
    """The words' share of an adapter, in the text encoder `component`."""

    def __init__(self, component: str, embedding: WordEmbedding, words: Sequence[Word]) -> None:
        """Remember where the rows start."""
        self._component, self._embedding, self._words = component, embedding, tuple(words)
        self._start = [rows.detach().clone() for rows in embedding.words]

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Return each word's rows (vectors, D)."""
        rows = zip(self._words, self._embedding.words, strict=True)
        return {f"{PREFIX}{self._component}.{word.text}": parameter for word, parameter in rows}

    def movement(self) -> float:
        """Return the norm of the rows' change since they were initialized."""
        changes = zip(self._embedding.words, self._start, strict=True)
        return sum(float((now.detach() - start).square().sum()) for now, start in changes) ** 0.5

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Read the new words as unknown while inside."""
        self._embedding.enabled = False
        try:
            yield
        finally:
            self._embedding.enabled = True


def attach(
    component: str, text_encoder: nn.Module, tokenizer: Any, words: Sequence[Word], seed: int
) -> WordRows:
    """Add the words to `tokenizer` and, as learnable rows, to `text_encoder`, in place.

    `component` is the encoder's name in a pipeline.

    Raises BaseModelError for a word that the base knows already, or an initializer that says
    nothing.
    """
    encoder: Any = text_encoder
    table = encoder.get_input_embeddings()
    generator = torch.Generator().manual_seed(seed)
    rows = {w.text: _start(w, table.weight, tokenizer, generator) for w in words}
    embedding = WordEmbedding(table, rows, add_words(tokenizer, words))
    encoder.set_input_embeddings(embedding)
    return WordRows(component, embedding, words)


def _start(word: Word, table_VD: Tensor, tokenizer: Any, generator: torch.Generator) -> Tensor:
    """Place a word at its initializer's mean row, else at the table's; (vectors, D) float32.

    The second vector on start a little apart (a tenth of the table's deviation), or all would learn
    the same.
    """
    known_VD = table_VD.detach().float()
    if word.initializer is None:
        mean_D = known_VD.mean(0)
    else:
        ids = tokenizer(word.initializer, add_special_tokens=False).input_ids
        if not ids:
            raise BaseModelError(
                f"word {word.text!r}: its initializer {word.initializer!r} is empty to this base; "
                "expected a known word",
                "name one, such as 'dog', or leave it out",
            )
        mean_D = known_VD[torch.tensor(ids, device=known_VD.device)].mean(0)
    noise_ND = torch.randn(word.vectors, len(mean_D), generator=generator).to(mean_D.device)
    noise_ND[0] = 0
    return mean_D + _SPREAD * known_VD.std(0) * noise_ND
