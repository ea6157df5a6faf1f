"""Put adapters on a diffusers pipeline by exact weight changes, and take them off again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from customize.adapters.deltas import layers, weight_delta, word_readers, words
from customize.adapters.file import AdapterFile
from customize.errors import AdapterFileError
from customize.families import denoiser_of
from customize.families.profile import tokenizer_of
from customize.families.words import Word, add_words


@dataclass(frozen=True)
class _Vocabulary:
    """The tokenizer and the embedding table of one text encoder as they were."""

    component: str
    tokenizer: Any
    table: nn.Module

    def restore(self, pipeline: Any) -> None:
        setattr(pipeline, tokenizer_of(self.component), self.tokenizer)
        _set_table(getattr(pipeline, self.component), self.table)


@dataclass
class Applied:
    """What a pipeline was before adapters changed it; `remove` gives it back bit for bit."""

    pipeline: Any
    weights: dict[str, Tensor] = field(default_factory=dict)
    vocabularies: list[_Vocabulary] = field(default_factory=list)

    @torch.no_grad()
    def remove(self) -> None:
        """Restore every weight, the tokenizers and the embedding tables."""
        for layer, original in self.weights.items():
            module_of(self.pipeline, layer).weight.copy_(original)
        self.weights.clear()
        for vocabulary in self.vocabularies:
            vocabulary.restore(self.pipeline)
        self.vocabularies.clear()


@torch.no_grad()
def apply_adapters(pipeline: Any, adapters: Sequence[tuple[AdapterFile, float]]) -> Applied:
    """Change `pipeline` in place to the base plus strength times each adapter's weight change.

    Changes are summed in float32 against the untouched base, so order does not matter. Words are
    added whole, whatever the strength. Raises AdapterFileError, leaving the pipeline as it was, for
    layers the base lacks, shapes that do not fit, weights that overflow and a word that two
    adapters own (BaseModelError for a word that the base knows).
    """
    applied = Applied(pipeline)
    changes = [(adapter, strength, set(layers(adapter))) for adapter, strength in adapters]
    try:
        for layer in sorted({layer for *_, changed in changes for layer in changed}):
            weight = module_of(pipeline, layer).weight
            total = weight.float()
            for adapter, strength, changed in changes:
                if layer in changed:
                    total = total + strength * weight_delta(adapter, layer, weight)
            applied.weights[layer] = weight.detach().clone()
            weight.copy_(total)
            if not weight.isfinite().all():
                raise AdapterFileError(
                    f"the adapters' changes of {layer} overflow {weight.dtype}; expected finite "
                    "weights; lower the strength, or open the base in float32"
                )
        files = [adapter for adapter, _ in adapters]
        for component in sorted({name for file in files for name in word_readers(file)}):
            _add_words(applied, component, [words(file, component) for file in files])
    except BaseException:
        applied.remove()
        raise
    return applied


def _add_words(applied: Applied, component: str, taught: Sequence[Mapping[str, Tensor]]) -> None:
    """Add the rows that each adapter taught to the text encoder `component` and its tokenizer."""
    rows = [item for adapter in taught for item in adapter.items()]
    if not rows:
        return
    pipeline, tokenizer_name = applied.pipeline, tokenizer_of(component)
    text_encoder = getattr(pipeline, component, None)
    if text_encoder is None:
        raise AdapterFileError(
            f"the adapter teaches words to {component}, which this base does not have; "
            "expected the base it was made for; name that base"
        )
    old = text_encoder.get_input_embeddings()
    _check_words(rows, old.weight.shape[1])
    vocabulary = _Vocabulary(component, getattr(pipeline, tokenizer_name), old)
    tokenizer = copy.deepcopy(vocabulary.tokenizer)
    first = add_words(tokenizer, [Word(text, vectors=len(row)) for text, row in rows])
    learned_ND = torch.cat([row for _, row in rows]).to(old.weight)
    last = first + len(learned_ND)
    table_VD = old.weight.new_zeros(max(len(old.weight), last), old.weight.shape[1])
    table_VD[: len(old.weight)] = old.weight
    table_VD[first:last] = learned_ND
    applied.vocabularies.append(vocabulary)
    setattr(pipeline, tokenizer_name, tokenizer)
    _set_table(text_encoder, nn.Embedding.from_pretrained(table_VD))


def _check_words(rows: Sequence[tuple[str, Tensor]], width: int) -> None:
    """Refuse a word that two adapters own, and rows that are not `width` wide."""
    texts = [text for text, _ in rows]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise AdapterFileError(
            f"the word {twice[0]!r} is in more than one of these adapters; expected words of their "
            "own; use one of them, or teach one again under another word"
        )
    for text, row_ND in rows:
        if row_ND.shape[1] != width:
            raise AdapterFileError(
                f"the word {text!r} is {row_ND.shape[1]} wide and the base's words {width}; "
                "expected the base it was made for; name that base"
            )


def _set_table(text_encoder: Any, table: nn.Module) -> None:
    text_encoder.set_input_embeddings(table)
    text_encoder.config.vocab_size = len(table.weight)  # type: ignore[arg-type]


def module_of(pipeline: Any, layer: str) -> Any:
    """Find a layer by its name in adapter files; CLIP text models may have one level more."""
    component, _, path = layer.partition(".")
    denoises = component == "denoiser"
    root: Any = denoiser_of(pipeline) if denoises else getattr(pipeline, component, None)
    for name in (path, f"text_model.{path}"):
        try:
            found = root.get_submodule(name)
        except AttributeError:
            continue
        if hasattr(found, "weight"):
            return found
    raise AdapterFileError(
        f"the adapter changes the layer {layer}, which this base does not have; "
        "expected the base it was made for; name that base"
    )
