"""Concept words as other programs read them: an embedding file each, or bundled with the weights.

The file's name is the word that people type, so it is the word without its angle brackets:
`embedding:my-dog` in ComfyUI, `my-dog` in A1111, `<my-dog>` in InvokeAI.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.targets import LONGEST_NAME, is_device

# One encoder's rows alone (SD 1), or both by name (SDXL).
SINGLE = "emb_params"
PAIR: Mapping[str, str] = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_BUNDLE = "bundle_emb."
_STAR = "string_to_param.*"


def file_name(word: str) -> str:
    """Name a word's file; no dot, which would end the name in bundles.

    >>> file_name("<my-dog>")
    'my-dog'
    """
    name = re.sub(r"[^\w-]+", "-", word.strip("<>")).strip("-") or "word"
    name = name.encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{name}_" if is_device(name) else name


def word_of(name: str) -> str:
    """Give the word of a file's name, with the brackets that set it apart from known words.

    >>> word_of("my-dog")
    '<my-dog>'
    """
    return f"<{name.strip('<>')}>"


def to_embedding(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write one word's rows (n, D), by text encoder: of one alone, or of both that SDXL has."""
    if len(rows) == 1:
        return {SINGLE: rows["text_encoder"]}
    return {name: rows[encoder] for name, encoder in PAIR.items()}


def from_embedding(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Read one word's rows; a single tensor of any name counts, as diffusers writes its token.

    Raises AdapterFileError for other tensors.
    """
    found: dict[str, Tensor]
    if set(tensors) == set(PAIR):
        found = {encoder: tensors[name] for name, encoder in PAIR.items()}
    elif len(tensors) == 1:
        found = {"text_encoder": next(iter(tensors.values()))}
    else:
        raise _no_word(f"{len(tensors)} tensors ({', '.join(sorted(tensors))})")
    for rows in found.values():
        if rows.ndim not in (1, 2) or not rows.numel():
            raise _no_word(f"a tensor of the shape {list(rows.shape)}")
    return {name: rows.float().reshape(-1, rows.shape[-1]) for name, rows in found.items()}


def is_embedding(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell an embedding file by its tensors' names and shapes."""
    if set(shapes) == set(PAIR):
        return True
    return len(shapes) == 1 and all(
        len(shape) in (1, 2) and "lora" not in name and not name.endswith((".weight", ".bias"))
        for name, shape in shapes.items()
    )


def to_bundle(words: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Write words into the weights' own file, which A1111 registers with it."""
    return {
        f"{_BUNDLE}{file_name(word)}.{_STAR if part == SINGLE else part}": tensor
        for word, rows in words.items()
        for part, tensor in to_embedding(rows).items()
    }


def from_bundle(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Read the words that come with weights."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key in filter(is_bundled, tensors):
        name, _, part = key.removeprefix(_BUNDLE).partition(".")
        parts[name][part] = tensors[key]
    rows = {SINGLE, _STAR, *PAIR}  # beside which A1111 may keep how a word was spelled
    return {
        word_of(name): from_embedding({p: t for p, t in found.items() if p in rows} or found)
        for name, found in parts.items()
    }


def _no_word(found: str) -> AdapterFileError:
    return AdapterFileError(
        f"one of its words has {found}; expected the rows of one text encoder, or clip_l and "
        "clip_g; export it again from the program that made it, or take another file"
    )


def is_bundled(key: str) -> bool:
    """Tell a bundled word's tensor from a module's."""
    return key.startswith(_BUNDLE)
