"""The words and instructions of all inputs, gathered under names that do not clash."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from customize.adapters.header import Taught
from customize.families.words import Word, replace_words
from customize.merging.inputs import Input

_PREFIX = "words."


@dataclass(frozen=True)
class Vocabulary:
    """What a merged adapter can be asked for.

    `rows` are the words' embedding rows under their names in the file, `concepts` all that was
    taught, `by_input` each input's own share of it in the words that the merged adapter knows, and
    `renamed` each input's words, old to new, where another input had the old one.
    """

    rows: Mapping[str, Tensor]
    concepts: tuple[Taught, ...]
    by_input: tuple[tuple[Taught, ...], ...]
    renamed: tuple[Mapping[str, str], ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """Return the words as tokenizers see them."""
        counts = {name.split(".", 2)[2]: len(rows) for name, rows in self.rows.items()}
        return tuple(Word(text, vectors=count) for text, count in counts.items())


def gather_concepts(inputs: Sequence[Input]) -> Vocabulary:
    """Keep every word and concept of the inputs; warn of each that needs another name.

    A word that several inputs have with identical rows is one word, and so is a concept that is the
    same in all; letters' case makes no difference, as it makes none to tokenizers.
    """
    taken = {word.lower() for item in inputs for word in _words(item)}
    known: dict[str, Mapping[str, Tensor]] = {}
    renamed = list[Mapping[str, str]]()
    for item in inputs:
        changes: dict[str, str] = {}
        for word, rows in _words(item).items():
            same = next((k for k in known if k.lower() == word.lower()), None)
            if same is None:
                known[word] = rows
            elif not _identical(known[same], rows):
                changes[word] = _free(word, taken)
                taken.add(changes[word].lower())
                known[changes[word]] = rows
                warnings.warn(
                    f"{item.path}: another adapter has a word {word!r} too; this one's is now "
                    f"{changes[word]!r}: write that in instructions",
                    stacklevel=2,
                )
        renamed.append(changes)
    by_input = _distinct(inputs, renamed)
    return Vocabulary(
        rows={
            f"{_PREFIX}{encoder}.{word}": tensor
            for word, rows in known.items()
            for encoder, tensor in rows.items()
        },
        concepts=tuple(dict.fromkeys(taught for own in by_input for taught in own)),
        by_input=by_input,
        renamed=tuple(renamed),
    )


def _words(item: Input) -> dict[str, dict[str, Tensor]]:
    """Return each word's rows by text encoder."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in item.adapter.tensors:
        if name.startswith(_PREFIX):
            _, encoder, word = name.split(".", 2)
            found.setdefault(word, {})[encoder] = item.adapter.tensors[name].clone()
    return found


def _identical(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _free(word: str, taken: Iterable[str]) -> str:
    """Number a word.

    >>> _free("<my-dog>", {"<my-dog>", "<my-dog-2>"})
    '<my-dog-3>'
    """
    stem, end = (word[:-1], ">") if word.endswith(">") else (word, "")
    names = (f"{stem}-{number}{end}" for number in range(2, 10**6))
    return next(name for name in names if name.lower() not in taken)


def _distinct(
    inputs: Sequence[Input], renamed: Sequence[Mapping[str, str]]
) -> tuple[tuple[Taught, ...], ...]:
    """Say each input's concepts in the new words, and give different concepts different names."""
    by_name: dict[str, Taught] = {}
    owners = list[tuple[Taught, ...]]()
    for item, changes in zip(inputs, renamed, strict=True):
        own = list[Taught]()
        for taught in _reworded(item.header.concepts, changes):
            if by_name.setdefault(taught.name, taught) != taught:
                old, name = taught.name, _free(taught.name, by_name)
                taught = replace(taught, name=name)
                by_name[name] = taught
                warnings.warn(
                    f"{item.path}: another adapter has a concept {old!r} too; this one's is listed "
                    f"as {name!r}",
                    stacklevel=3,
                )
            own.append(taught)
        owners.append(tuple(own))
    return tuple(owners)


def _reworded(concepts: Sequence[Taught], changes: Mapping[str, str]) -> Iterator[Taught]:
    lowered = {old.lower(): new for old, new in changes.items()}
    for taught in concepts:
        yield replace(
            taught,
            word=lowered.get(taught.word.lower(), taught.word) if taught.word else None,
            instructions=tuple(replace_words(text, changes) for text in taught.instructions),
        )
