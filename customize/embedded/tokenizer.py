"""The embedded base's CLIPTokenizer: bytes and merges learned from the world's own instructions."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from customize.embedded.models import TEXT_POSITIONS
from customize.embedded.world.edits import random_edit
from customize.embedded.world.wordings import all_words

WORD_END = "</w>"
MERGES = 420
EXTRA_WORDS = [
    "photo",
    "picture",
    "image",
    "style",
    "brand",
    "concept",
    "my",
    "your",
    "the",
    "this",
    "person",
    "puppy",
    "animal",
    "object",
    "make",
    "look",
    "like",
    "on",
    "in",
    "of",
    "with",
    "and",
    "a",
    "an",
    "as",
    "from",
    "into",
    "at",
    "by",
]


def learn_tokenizer(folder: Path, seed: int) -> CLIPTokenizer:
    """Learn the merges, write `vocab.json`, `merges.txt` and `tokenizer.json`; open the result."""
    words = Counter(" ".join(all_words()).replace("{0}", "").replace("{1}", "").split())
    for index in range(1500):
        edit = random_edit((seed, index))
        words.update(f"{edit.instruction} {edit.source_caption} {edit.target_caption}".split())
    words.update(dict.fromkeys(EXTRA_WORDS, 50))
    merges = learn_merges(words, MERGES)
    symbols = list(bytes_to_unicode().values())
    vocabulary = [*symbols, *(s + WORD_END for s in symbols), *("".join(pair) for pair in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TEXT_POSITIONS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """Learn byte-pair merges (Sennrich et al. 2016, algorithm 1); ties go to the first in order."""
    pieces = {word: (*word[:-1], word[-1] + WORD_END) for word in words if word}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merged(parts, best) for word, parts in pieces.items()}
    return merges


def _merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    index = 0
    while index < len(parts):
        if parts[index : index + 2] == pair:
            merged.append("".join(pair))
            index += 2
        else:
            merged.append(parts[index])
            index += 1
    return tuple(merged)


def padded_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> np.ndarray:
    """Tokenize to int64 (B, L), padded and cut to the tokenizer's own length."""
    encoded = tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length
    )
    return np.asarray(encoded["input_ids"], dtype=np.int64)
