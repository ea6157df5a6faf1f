"""Hold an adapter's header against its tensors: the one check of all files, read or written."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from customize.adapters.header import MOST_VECTORS, is_word

if TYPE_CHECKING:
    from torch import Tensor

    from customize.adapters.header import Header

LARGEST = 3.4e38
"""What float32 holds; a product of factors whose norms multiply to more could overflow."""
LAYER = re.compile(
    r"((?:denoiser|text_encoder(?:_\d)?)\.[A-Za-z0-9_.]+)\.(delta|lora_A|lora_B|magnitude)"
)
WORD = re.compile(r"words\.(text_encoder(?:_\d)?)\.(.+)")
_PARTS = (
    {"delta"},
    {"lora_A", "lora_B"},
    {"lora_A", "lora_B", "magnitude"},
    {"delta", "lora_A", "lora_B"},
    {"delta", "lora_A", "lora_B", "magnitude"},
)


@dataclass(frozen=True)
class Size:
    """A tensor's shape, and its norm: infinite or no number where one of its numbers is."""

    shape: tuple[int, ...]
    norm: float

    @classmethod
    def of(cls, tensor: Tensor) -> Size:
        """Measure a tensor, in float64."""
        import torch

        norm = torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)
        return cls(tuple(tensor.shape), float(norm))


def fault_of(header: Header, sizes: Mapping[str, Size]) -> str | None:
    """Say what is wrong with the tensors of an adapter of this header; None where nothing is."""
    return next(_faults(header, sizes), None)


def _faults(header: Header, sizes: Mapping[str, Size]) -> Iterator[str]:
    if not sizes:
        yield "it holds no tensors"
    layers = defaultdict[str, dict[str, Size]](dict)
    words = defaultdict[str, dict[str, Size]](dict)
    for name, size in sizes.items():
        if layer := LAYER.fullmatch(name):
            layers[layer[1]][layer[2]] = size
        elif (word := WORD.fullmatch(name)) and is_word(word[2]):
            words[word[2]][word[1]] = size
        else:
            yield f"it holds a tensor named {name[:80]!r}"
        if not size.shape or 0 in size.shape:
            what = "empty" if size.shape else "one number alone"
            yield f"its tensor {name} is {what} (shape {list(size.shape)})"
        if not math.isfinite(size.norm):
            yield f"its tensor {name} holds numbers that are not finite"
    if header.alpha is not None and header.rank is None:
        yield "its header gives alpha and no rank"
    for layer, parts in layers.items():
        faults = _layer_faults(header, layer, parts)
        yield from (f"of its layer {layer} {found}" for found in faults)
    yield from _word_faults(header, words)


def _layer_faults(header: Header, layer: str, parts: Mapping[str, Size]) -> Iterator[str]:
    """Check which tensors of a layer are there, and whether they fit one another and the header."""
    if set(parts) not in _PARTS:
        yield f"only {' and '.join(sorted(parts))} is there"
        return
    if "lora_A" not in parts:
        return
    if header.method == "low_rank" and header.decompose and "magnitude" not in parts:
        yield "the magnitudes of DoRA are missing, which its header says it is"
    down, up = parts["lora_A"].shape, parts["lora_B"].shape
    if len(down) < 2 or len(up) != len(down) or up[1] != down[0] or set(up[2:]) - {1}:
        yield f"the factors {list(down)} and {list(up)} do not fit one another"
        return
    rank = header.rank if layer.startswith("denoiser.") else header.text_encoder_rank
    if header.method == "low_rank" and rank and rank != down[0]:
        yield f"the rank is {down[0]}, and its header says {rank}"
    whole = (up[0], *down[1:])
    if "delta" in parts and parts["delta"].shape != whole:
        yield f"the change is {list(parts['delta'].shape)}, and its factors make {list(whole)}"
    if "magnitude" in parts and math.prod(parts["magnitude"].shape) != up[0]:
        yield f"{math.prod(parts['magnitude'].shape)} magnitudes are there for {up[0]} outputs"
    if header.scale * parts["lora_A"].norm * parts["lora_B"].norm > LARGEST:
        yield "the factors are so large that their product overflows"


def _word_faults(header: Header, words: Mapping[str, Mapping[str, Size]]) -> Iterator[str]:
    """Check the rows of words, and that every word the header tells of has its own."""
    encoders = sorted({encoder for rows in words.values() for encoder in rows})
    for word, rows in words.items():
        counts = {size.shape[0] if size.shape else 0 for size in rows.values()}
        if any(len(size.shape) != 2 for size in rows.values()) or len(counts) > 1:
            yield f"the word {word} has no rows of numbers for each of its vectors"
        elif max(counts) > MOST_VECTORS:
            yield f"the word {word} has {max(counts)} rows, and {MOST_VECTORS} are read"
        if missing := [encoder for encoder in encoders if encoder not in rows]:
            yield f"the word {word} has no rows for {missing[0]}, which other words have"
    for taught in header.concepts:
        if taught.word is None:
            continue
        rows = words.get(taught.word)
        if rows is None:
            yield f"its header teaches the word {taught.word}, and no rows of that word are there"
        elif any(size.shape[:1] != (taught.vectors,) for size in rows.values()):
            yield f"its header says {taught.vectors} rows of {taught.word}, its tensors do not"
