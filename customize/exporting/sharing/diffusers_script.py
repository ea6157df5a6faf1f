"""The lines of Python that make one edit with diffusers, as people paste them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from customize.drawing.escape import python
from customize.exporting.formats.embeddings import file_name

if TYPE_CHECKING:
    from customize.exporting.sharing.first_edit import FirstEdit
    from customize.exporting.targets import Target


def diffusers_script(edit: FirstEdit, written: Collection[Target]) -> str | None:
    """Write the lines, to be run from the exports' folder; None where none of these was written.

    The base and the LoRA where diffusers finds the base by its name, else the whole model. Words
    of several text encoders take many calls: the whole model knows them.
    """
    by_parts = edit.opens_by_name and not (edit.words and len(edit.profile.text_encoders) > 1)
    if by_parts and "diffusers" in written:
        return "\n".join(_lines(edit, _loading(edit)))
    if "full-model" in written:
        folder = f"full-model/{edit.name}"
        return "\n".join(_lines(edit, [_open(edit, python(folder))]))
    return None


def _lines(edit: FirstEdit, opening: list[str]) -> list[str]:
    sampling = edit.sampling
    numbers = [f"num_inference_steps={sampling.steps}", f"guidance_scale={sampling.text_guidance}"]
    if edit.profile.guides_by_source:
        numbers.append(f"image_guidance_scale={sampling.image_guidance}")
    embedded = ["from customize.families.base import EMBEDDED"] * ("EMBEDDED" in opening[0])
    return [
        f"from diffusers import {edit.profile.pipeline}",
        "from PIL import Image",
        *embedded,
        "",
        *opening,
        'picture = Image.open("picture.png").convert("RGB")',
        f"picture.thumbnail(({edit.side}, {edit.side}))",
        f"settings = dict({', '.join(numbers)})",
        f"edit = pipe({python(edit.instruction)}, image=picture, **settings).images[0]",
        'edit.save("edit.png")',
    ]


def _loading(edit: FirstEdit) -> list[str]:
    opening = _open(edit, "EMBEDDED" if edit.base == "embedded" else python(edit.base))
    lora = 'pipe.load_lora_weights("diffusers", weight_name="pytorch_lora_weights.safetensors")'
    words = [
        f"pipe.load_textual_inversion({python(place)}, token={python(word)})"
        for word in edit.words
        for place in [f"diffusers/embeddings/{file_name(word)}.safetensors"]
    ]
    return [opening, *words, *[lora] * edit.changes_layers]


def _open(edit: FirstEdit, place: str) -> str:
    return f"pipe = {edit.profile.pipeline}.from_pretrained({place})"
