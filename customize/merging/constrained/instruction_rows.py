"""What the inputs' own instructions, and generic ones, look like to the layers that read text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from customize.adapters.apply import apply_adapters
from customize.adapters.file import AdapterFile
from customize.errors import MergeError
from customize.families import Encoder, open_encoder
from customize.families.base import Base
from customize.families.known_edits import known_edits
from customize.families.words import Word, expand_words
from customize.merging.constrained.constraints import Rows
from customize.merging.inputs import Input
from customize.merging.vocabulary import Vocabulary


@dataclass(frozen=True)
class InstructionTexts:
    """The rows (n, K) of each input's own instructions and (R, K) of generic ones, float32."""

    asked: tuple[Rows, ...]
    generic: Tensor


def instructions_of(inputs: Sequence[Input], vocabulary: Vocabulary) -> list[tuple[str, ...]]:
    """List what each input was taught to carry out, and its words by themselves.

    Raises MergeError, naming them all, for inputs whose files do not say.
    """
    found = [
        tuple(dict.fromkeys(text for one in own for text in (*one.instructions, one.word) if text))
        for own in vocabulary.by_input
    ]
    silent = [str(item.path) for item, texts in zip(inputs, found, strict=True) if not texts]
    if silent:
        raise MergeError(
            f"{', '.join(silent)}: no instruction or word is known that it was taught; expected "
            "some, since they are what the constraints keep; choose another --method"
        )
    return found


def read_texts(
    base: Base,
    inputs: Sequence[Input],
    vocabulary: Vocabulary,
    merged_text: Mapping[str, Tensor],
) -> InstructionTexts:
    """Encode every input's instructions with the merged vocabulary, and the base's own edits.

    `merged_text` has the merged changes of the text encoders as a file of scale 1 would; where
    there are some, each input's instructions are read with its own changes too, as `alone`. Raises
    MergeError as `instructions_of` does, BaseModelError for a base that does not open.
    """
    asked = instructions_of(inputs, vocabulary)
    own = {text for texts in asked for text in texts}
    known = known_edits(base)
    generic = ["", *(text for text in known if text not in own)]
    words = AdapterFile(inputs[0].header, vocabulary.rows)
    reader = _Reader(open_encoder(base), vocabulary.words)
    merged = AdapterFile(replace(inputs[0].header, rank=None, alpha=None), merged_text)
    with reader.taught([(words, 1.0), (merged, 1.0)]):
        generic_RK = reader.rows(generic)
        rows = [reader.rows(texts) for texts in asked]
    if not merged_text:
        return InstructionTexts(tuple(Rows(row, row) for row in rows), generic_RK)
    pairs = list[Rows]()
    for item, texts, row in zip(inputs, asked, rows, strict=True):
        with reader.taught([(words, 1.0), (_text_part(item), item.weight)]):
            pairs.append(Rows(row, reader.rows(texts)))
    return InstructionTexts(tuple(pairs), generic_RK)


class _Reader:
    """A base's encoder, on whose text encoders adapters can be put and taken off."""

    def __init__(self, encoder: Encoder, words: Sequence[Word]) -> None:
        self._encoder, self._words = encoder, words
        # What adapters are put on, in place of a pipeline
        self._stage = SimpleNamespace(**encoder.text_encoders, **encoder.tokenizers)

    @contextmanager
    def taught(self, adapters: Sequence[tuple[AdapterFile, float]]) -> Iterator[None]:
        """Have the text encoders know what `adapters` taught them while inside."""
        applied = apply_adapters(self._stage, adapters)
        try:
            yield
        finally:
            applied.remove()

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Return one row (K) for every token that the denoiser reads of each text, padding too."""
        now = {name: getattr(self._stage, name) for name in self._encoder.tokenizers}
        encoder = replace(self._encoder, tokenizers=now)
        spelled = (expand_words(text, self._words) for text in texts)
        return torch.cat([encoder.text(text, as_tokens=False)["text"] for text in spelled])


def _text_part(item: Input) -> AdapterFile:
    """Return what an adapter does to text encoders, its words left out."""
    tensors = item.adapter.tensors
    names = [name for name in tensors if name.startswith("text_encoder")]
    return AdapterFile(item.header, {name: tensors[name] for name in names})
