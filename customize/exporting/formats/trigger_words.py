"""Words and instructions of an adapter as people type them in each program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, assert_never

from customize.exporting.formats.embeddings import file_name
from customize.exporting.targets import Target
from customize.families.words import replace_words

if TYPE_CHECKING:
    from customize.adapters.header import Header


def triggers(header: Header, target: Target) -> Iterator[str]:
    """Yield the concepts' words, or a first instruction where a concept has none."""
    for concept in header.concepts:
        if concept.word:
            yield typed_in(concept.word, target)
        elif concept.instructions:
            yield concept.instructions[0]


def examples(header: Header, target: Target | None = None) -> Iterator[str]:
    """Yield the instructions each concept was taught with; `target` None leaves words as taught."""
    for concept in header.concepts:
        for instruction in concept.instructions:
            if concept.word and target is not None:
                told = {concept.word: typed_in(concept.word, target)}
                yield replace_words(instruction, told)
            else:
                yield instruction


def typed_in(word: str, target: Target) -> str:
    """Write a word as people type it in the program: the name of its embedding file.

    >>> typed_in("<my-dog>", "comfyui"), typed_in("<my-dog>", "a1111"), typed_in("<my-dog>", "peft")
    ('embedding:my-dog', 'my-dog', '<my-dog>')
    """
    match target:
        case "comfyui":
            return f"embedding:{file_name(word)}"
        case "a1111" | "kohya":
            return file_name(word)
        case "invokeai":
            return f"<{file_name(word)}>"
        case "diffusers" | "peft" | "custom-diffusion" | "full-model":
            return word
        case _:
            assert_never(target)
