"""Put adapters on a diffusers pipeline by exact weight changes, and take them off again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from customize.adapters.deltas import layers, weight_delta, words
from customize.adapters.file import AdapterFile
from customize.errors import AdapterFileError
from customize.families.words import Word, add_words


@dataclass
class Applied:
    """What a pipeline was before adapters changed it; `remove` gives it back bit for bit."""

    pipeline: Any
    weights: dict[str, Tensor] = field(default_factory=dict)
    vocabulary: tuple[Any, nn.Module] | None = None

    @torch.no_grad()
    def remove(self) -> None:
        """Restore every weight, the tokenizer and the embedding table."""
        for layer, original in self.weights.items():
            _module(self.pipeline, layer).weight.copy_(original)
        self.weights.clear()
        if self.vocabulary is not None:
            self.pipeline.tokenizer, table = self.vocabulary
            _set_table(self.pipeline.text_encoder, table)
            self.vocabulary = None


@torch.no_grad()
def apply_adapters(pipeline: Any, adapters: Sequence[tuple[AdapterFile, float]]) -> Applied:
    """Change `pipeline` in place to the base plus strength times each adapter's weight change.

    Changes are summed in float32 against the untouched base, so order does not matter. Words are
    added whole, whatever the strength. Raises AdapterFileError, leaving the pipeline as it was, for
    layers the base lacks, shapes that do not fit and a word that two adapters own (BaseModelError
    for a word that the base knows).
    """
    applied = Applied(pipeline)
    changes = [(adapter, strength, set(layers(adapter))) for adapter, strength in adapters]
    try:
        for layer in sorted({layer for *_, changed in changes for layer in changed}):
            weight = _module(pipeline, layer).weight
            total = weight.float()
            for adapter, strength, changed in changes:
                if layer in changed:
                    total = total + strength * weight_delta(adapter, layer, weight)
            applied.weights[layer] = weight.detach().clone()
            weight.copy_(total)
        _add_words(applied, [adapter for adapter, _ in adapters])
    except BaseException:
        applied.remove()
        raise
    return applied


def _add_words(applied: Applied, adapters: Sequence[AdapterFile]) -> None:
    rows = [item for adapter in adapters for item in words(adapter).items()]
    if not rows:
        return
    texts = [text for text, _ in rows]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise AdapterFileError(
            f"the word {twice[0]!r} is in more than one of these adapters; expected words of their "
            "own; use one of them, or "
            "teach one again under another word"
        )
    pipeline, text_encoder = applied.pipeline, applied.pipeline.text_encoder
    tokenizer = copy.deepcopy(pipeline.tokenizer)
    first = add_words(tokenizer, [Word(text, vectors=len(row)) for text, row in rows])
    old = text_encoder.get_input_embeddings()
    learned_ND = torch.cat([row for _, row in rows]).to(old.weight)
    if learned_ND.shape[1] != old.weight.shape[1]:
        raise AdapterFileError(
            f"the word {texts[0]!r} is {learned_ND.shape[1]} wide and the base's words "
            f"{old.weight.shape[1]}; expected the "
            "base it was made for; name that base"
        )
    table_VD = old.weight.new_zeros(
        max(len(old.weight), first + len(learned_ND)), old.weight.shape[1]
    )
    table_VD[: len(old.weight)] = old.weight
    table_VD[first : first + len(learned_ND)] = learned_ND
    applied.vocabulary = (pipeline.tokenizer, old)
    pipeline.tokenizer = tokenizer
    _set_table(text_encoder, nn.Embedding.from_pretrained(table_VD))


def _set_table(text_encoder: Any, table: nn.Module) -> None:
    text_encoder.set_input_embeddings(table)
    text_encoder.config.vocab_size = len(table.weight)  # type: ignore[arg-type]


def _module(pipeline: Any, layer: str) -> Any:
    """Find a layer by its name in adapter files; CLIP text models may have one level more."""
    component, _, path = layer.partition(".")
    root = pipeline.unet if component == "denoiser" else pipeline.text_encoder
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
