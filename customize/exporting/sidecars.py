"""What front ends show beside a weights file: trigger words, example instructions, a preview.

A1111 and InvokeAI read NAME.json ("activation text" first of all), A1111 and ComfyUI's pickers show
NAME.png; where each looks is in docs/frontends.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, assert_never

from customize.exporting import Target
from customize.exporting.embeddings import file_name
from customize.exporting.plans import Plan
from customize.families.words import replace_words

if TYPE_CHECKING:
    from PIL import Image

    from customize.adapters.header import Header

_PREVIEW_SIDE = 512


def plan_sidecars(
    header: Header, name: str, target: Target, preview: Image.Image | None = None
) -> Plan:
    """Plan NAME.json, and NAME.png where there is a preview, which is shrunk to 512 pixels."""
    text = json.dumps(sidecar(header, target), indent=4, ensure_ascii=False)
    plan: Plan = {f"{name}.json": text + "\n"}
    if preview is not None:
        small, content = preview.copy(), io.BytesIO()
        small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
        small.save(content, format="PNG")
        plan[f"{name}.png"] = content.getvalue()
    return plan


def sidecar(header: Header, target: Target) -> dict[str, Any]:
    """Return what NAME.json says, under A1111's keys; words as people type them in `target`."""
    return {
        "description": ", ".join(concept.name for concept in header.concepts),
        "sd version": "SDXL" if header.family.endswith("_xl") else "SD1",
        "activation text": ", ".join(triggers(header, target)),
        "preferred weight": 1.0,
        "negative text": "",
        "notes": "\n".join(
            ["For InstructPix2Pix models: give a picture and an instruction.", *examples(header)]
        ),
        "trigger words": list(triggers(header, target)),
        "example instructions": list(examples(header, target)),
    }


def triggers(header: Header, target: Target) -> Iterator[str]:
    """Yield the concepts' words, or a first instruction where a concept has none."""
    for concept in header.concepts:
        if concept.word:
            yield spelled(concept.word, target)
        elif concept.instructions:
            yield concept.instructions[0]


def examples(header: Header, target: Target | None = None) -> Iterator[str]:
    """Yield the instructions each concept was taught with; `target` None leaves words as taught."""
    for concept in header.concepts:
        for instruction in concept.instructions:
            if concept.word and target is not None:
                told = {concept.word: spelled(concept.word, target)}
                yield replace_words(instruction, told)
            else:
                yield instruction


def spelled(word: str, target: Target) -> str:
    """Write a word as people type it in the program: the name of its embedding file.

    >>> spelled("<my-dog>", "comfyui"), spelled("<my-dog>", "a1111"), spelled("<my-dog>", "peft")
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
