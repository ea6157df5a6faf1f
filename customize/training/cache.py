"""Examples and instructions -> encoded tensors, each kept in a file that its whole content names.

A file's key holds everything that shaped it, so a changed picture, base, size or word can never
meet a stale file. The base's encoders are opened only for what is missing, and freed again.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from customize.families import Encoder, open_encoder
from customize.families.base import Base
from customize.families.words import Word
from customize.files.tensors import DamagedError, read_tensors, save_tensors
from customize.pairs.buckets import Crop, load_example
from customize.shapes import Encoded, Pair

CODE_VERSION = 2
"""Raise it whenever what is encoded changes; old files are then left unread."""


@dataclass(frozen=True)
class View:
    """One way to look at a pair: at `size` (W, H), cropped, perhaps flipped and recoloured."""

    pair: Pair
    size: tuple[int, int]
    crop: Crop = Crop()  # noqa: RUF009 - frozen
    flip: bool = False
    alpha_color: str = "#ffffff"
    other_colors: int | None = None
    """The number that draws colours for what changes in the source; None leaves them."""


@dataclass(frozen=True)
class Setting:
    """What the encoders are, and how text leaves them."""

    base: Base
    words: tuple[Word, ...] = ()
    as_tokens: bool = False


@dataclass(frozen=True)
class CachedView:
    """A view encoded, and (without conditions) its source encoded as if nothing were edited."""

    edited: Encoded
    unedited: Encoded


def pair_digest(pair: Pair) -> str:
    """Return the sha256 of all pictures' bytes and the instruction."""
    pictures = (pair.source, pair.target, *pair.references)
    parts = (*(path.read_bytes() for path in pictures), pair.instruction.encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def encode_all(
    folder: Path,
    setting: Setting,
    views: Sequence[View],
    instructions: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[list[CachedView], Mapping[str, Tensor]]:
    """Return every view encoded, and the instructions' text conditions stacked (N, ...).

    Reads what `folder` holds and encodes the rest, which it then holds too; a damaged file is
    encoded anew. Raises PairsError for pictures that cannot be read.
    """
    digests = {id(view.pair): pair_digest(view.pair) for view in views}
    jobs = [
        *(_view_job(view, setting, digests[id(view.pair)]) for view in views),
        _text_job(instructions, setting),
    ]
    keys = [job.key(setting) for job in jobs]
    held = [_held(folder, key) for key in keys]
    missing = [index for index, tensors in enumerate(held) if tensors is None]
    if missing:
        encoder = open_encoder(
            setting.base, device=device, words=setting.words, reads_text=not setting.as_tokens
        )
        for index in tqdm(missing, "encoding", disable=None if progress else True, leave=False):
            held[index] = made = jobs[index].make(encoder)
            save_tensors(_path(folder, keys[index]), made, key=keys[index])
        del encoder
        _free_memory()
    full = [tensors for tensors in held if tensors is not None]
    assert len(full) == len(jobs)
    return [_unpack(tensors) for tensors in full[:-1]], full[-1]


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _held(folder: Path, key: str) -> dict[str, Tensor] | None:
    """Read what the cache holds under a key, None where that is missing or not what was written."""
    try:
        tensors, _ = read_tensors(_path(folder, key), key=key)
    except (FileNotFoundError, DamagedError):
        return None
    return tensors


@dataclass(frozen=True)
class _Job:
    """What one cache file holds: the facts that shape it and how to make it."""

    facts: Mapping[str, Any]
    make: Callable[[Encoder], dict[str, Tensor]]

    def key(self, setting: Setting) -> str:
        """Hash all that shapes the file, the setting included: its name on disk."""
        words = [(word.text, word.vectors) for word in setting.words]
        facts = {
            **self.facts,
            "version": CODE_VERSION,
            "base": setting.base.fingerprint,
            "words": words,
            "as_tokens": setting.as_tokens,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _view_job(view: View, setting: Setting, digest: str) -> _Job:
    def make(encoder: Encoder) -> dict[str, Tensor]:
        example = load_example(
            view.pair,
            view.size,
            flip=view.flip,
            alpha_color=view.alpha_color,
            crop=view.crop,
            other_colors=view.other_colors,
        )
        edited = encoder.encode(example, as_tokens=setting.as_tokens)
        example = replace(example, target_HWC=example.source_HWC)
        unedited = encoder.encode(example, as_tokens=setting.as_tokens)
        return {**_pack("edited", edited), **_pack("unedited", replace(unedited, conditions={}))}

    facts = {
        "pair": digest,
        "size": view.size,
        "crop": asdict(view.crop),
        "flip": view.flip,
        "alpha_color": view.alpha_color,
        "other_colors": view.other_colors,
    }
    return _Job(facts, make)


def _text_job(instructions: Sequence[str], setting: Setting) -> _Job:
    def make(encoder: Encoder) -> dict[str, Tensor]:
        texts = [encoder.text(text, as_tokens=setting.as_tokens) for text in instructions]
        return {key: torch.stack([text[key] for text in texts]) for key in texts[0]}

    return _Job({"instructions": list(instructions)}, make)


def _pack(role: str, encoded: Encoded) -> dict[str, Tensor]:
    tensors = {"mean": encoded.target_mean_Chw, "std": encoded.target_std_Chw}
    tensors |= {f"conditions.{key}": value for key, value in encoded.conditions.items()}
    return {f"{role}/{name}": tensor.contiguous() for name, tensor in tensors.items()}


def _unpack(tensors: Mapping[str, Tensor]) -> CachedView:
    def encoded(role: str) -> Encoded:
        """Gather one of the two encodings that a file holds."""
        start = f"{role}/conditions."
        return Encoded(
            target_mean_Chw=tensors[f"{role}/mean"],
            target_std_Chw=tensors[f"{role}/std"],
            conditions={
                k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)
            },
        )

    return CachedView(edited=encoded("edited"), unedited=encoded("unedited"))


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
