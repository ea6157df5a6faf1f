"""A toy base and two adapters with their pairs, for tests of merges that look at edits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from builders.bases import shake, toy_base, toy_header
from builders.runs import toy_pairs
from customize import families
from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.file import save_adapter
from customize.adapters.header import Taught
from customize.families import profile_of
from customize.families.base import resolve_base
from customize.families.words import Word


def judged_world(
    folder: Path,
    write_base: Callable[[Path], Path] = toy_base,
    size: tuple[int, int] = (32, 32),
) -> Path:
    """Write a base, and pairs and an adapter of two concepts: a word by LoRA, a look by K/V.

    Pictures are of `size` (W, H). No word is learned on a base whose text cannot be taught.
    """
    write_base(folder / "base")
    (folder / "base/customize.json").write_text(
        json.dumps(
            {
                "edit": {"steps": 2, "text_guidance": 2.0, "image_guidance": 1.2},
                "instructions": ["make it red", "paint it blue", "add the hat"],
            }
        )
    )
    for number, name in enumerate(("my_dog", "look")):
        text = "add <my-dog>" if name == "my_dog" else "make it night"
        toy_pairs(folder / name, first_seed=50 * number, text=text, size=size)
        toy_pairs(folder / f"{name}_unseen", first_seed=50 * number + 10, text=text, size=size)
    taught = profile_of(resolve_base(str(folder / "base")).family)
    groups = ("attention", "convolutions") if taught.learns_text else ("all",)
    _write_adapter(folder, "my_dog", LowRank(rank=2, targets=groups), 1)
    _write_adapter(folder, "look", CrossAttentionKV(), 2)
    return folder


def _write_adapter(folder: Path, name: str, method: Method, seed: int) -> None:
    base = resolve_base(str(folder / "base"))
    with_word = name == "my_dog" and profile_of(base.family).learns_text
    words = [Word("<my-dog>", "dog")] if with_word else []
    family = families.open_family(base, learns_text=bool(words))
    attached = attach(family, method, words, seed=seed)
    shake(attached, seed=seed, size=0.3)
    low_rank = isinstance(method, LowRank)
    taught = Taught(name, words[0].text if words else None)
    text = "add <my-dog>" if name == "my_dog" else "make it night"
    header = toy_header(
        family=base.family,
        base_name=str(folder / "base"),
        base_fingerprint=base.fingerprint,
        method="low_rank" if low_rank else "cross_attention_kv",
        rank=2 if low_rank else None,
        concepts=(replace(taught, instructions=(text,)),),
        recipe={
            "concepts": [{"name": name, "pairs": str(folder / name)}],
            "preview": {"images": str(folder / f"{name}_unseen")},
        },
    )
    save_adapter(folder / f"{name}.safetensors", header, attached.state())
