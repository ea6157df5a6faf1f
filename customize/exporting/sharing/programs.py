"""How to make one edit in each program: what goes where, what is typed, which sliders are moved."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from customize.drawing.escape import code, fenced
from customize.exporting.formats.embeddings import file_name
from customize.exporting.formats.trigger_words import typed_in
from customize.exporting.sharing import comfyui_workflow
from customize.exporting.sharing.diffusers_script import diffusers_script
from customize.exporting.targets import DIFFUSERS_ALONE
from customize.families.words import replace_words

if TYPE_CHECKING:
    from customize.exporting.sharing.first_edit import FirstEdit
    from customize.exporting.targets import Target

_BRACKETS = re.compile(r"([()\[\]\\])")  # these mean emphasis in A1111


def sections(edit: FirstEdit, written: Collection[Target]) -> Iterator[str]:
    """Yield the lines of Markdown of every program's section."""
    if edit.diffusers_alone:
        yield f"\n**{DIFFUSERS_ALONE[0].upper()}{DIFFUSERS_ALONE[1:]}.**"
    elif edit.profile.front_ends.comfyui:
        if "comfyui" in written:
            yield from _comfyui(edit, written)
        yield from _webui(edit)
        yield from _invokeai(edit)
    if (script := diffusers_script(edit, written)) is not None:
        yield "\n## One edit with diffusers\n"
        yield "In this folder, with your picture as picture.png:\n"
        fence, _, lines = fenced(script).partition("\n")
        yield f"{fence}python\n{lines}"
        yield '\nOn a GPU, `pipe.to("cuda")` before the edit.'
        if edit.words:
            loaded = "load_textual_inversion" in script
            yield "\n" + _without("the lines that load them" if loaded else None)


def _without(files: str | None) -> str:
    """Say what a word that is left out does; `files` tell people's programs what it means."""
    without = f"without {files}, or " * (files is not None)
    return (
        f"**Every word belongs to the adapter: {without}with a word left out of an "
        "instruction that was taught with it, every edit comes out different, and no program "
        "says so.**"
    )


def _numbered(steps: list[str]) -> Iterator[str]:
    yield from (f"{number}. {step}" for number, step in enumerate(steps, start=1))


def _where_files_go(
    edit: FirstEdit, target: Target, bases: str, loras: str, embeddings: str
) -> Iterator[str]:
    """Name the program's folders for base, weights and words of a target."""
    yield f"{_checkpoint(edit)} goes into {bases}."
    if edit.changes_layers:
        yield f"{code(f'{target}/{edit.name}.safetensors')} goes into {loras}."
    if edit.words:
        yield f"The files of {code(f'{target}/embeddings')} go into {embeddings}."


def _comfyui(edit: FirstEdit, written: Collection[Target]) -> Iterator[str]:
    yield "\n## One edit in ComfyUI\n"
    sampling, file = edit.sampling, comfyui_workflow.file_of(edit)
    folders = "models/checkpoints", "models/loras", "models/embeddings"
    steps = [
        *_where_files_go(edit, "comfyui", *folders),
        f"Open {code(f'comfyui/{file}')} (drag it onto the window), choose your picture in Load "
        "Image, and run.",
        f"The instruction stands in the first text as {code(comfyui_workflow.prompt(edit))}; Dual "
        f"CFG Guider holds the guidance by text, {sampling.text_guidance:g} (`cfg_conds`), and by "
        f"the picture, {sampling.image_guidance:g} (`cfg_cond2_negative`). The second text stays "
        "empty, and its output goes to `negative` from before InstructPixToPixConditioning.",
    ]
    yield from _numbered(steps)
    if "full-model" in written:
        yield (
            f"\n{code(f'full-model/{file}')} is the same for "
            f"{code(f'full-model/{edit.name}.safetensors')}, base and adapter in one checkpoint."
        )
    if edit.words:
        yield "\n" + _without("their files in models/embeddings")


def _webui(edit: FirstEdit) -> Iterator[str]:
    names = edit.profile.front_ends
    yield "\n## One edit in A1111 and Forge\n"
    if not names.webui:
        yield (
            f"They have no {names.edits} for {names.webui_version}: the file loads on "
            "text-to-image models of that kind, where it draws, and edits nothing. Edit in ComfyUI "
            "or with diffusers."
        )
        return
    told = {word: typed_in(word, "a1111") for word in edit.words}
    instruction = _BRACKETS.sub(r"\\\1", replace_words(edit.instruction, told))
    lora = f" <lora:{edit.name}:1>" * edit.changes_layers
    sampling = edit.sampling
    steps = [
        *_where_files_go(edit, "kohya", "models/Stable-diffusion", "models/Lora", "embeddings"),
        f"In img2img choose your picture and type {code(instruction + lora)}; leave the negative "
        "prompt empty.",
        f"Set Sampling steps {sampling.steps}, Width and Height to the picture's shape at about "
        f"{edit.side}, CFG Scale {sampling.text_guidance:g}, Image CFG Scale "
        f"{sampling.image_guidance:g} (it is there once the checkpoint is chosen), Denoising "
        "strength 1.",
    ]
    yield from _numbered(steps)
    if edit.words:
        yield "\n" + _without("their files in embeddings")


def _invokeai(edit: FirstEdit) -> Iterator[str]:
    names, words = edit.profile.front_ends, [f"<{file_name(word)}>" for word in edit.words]
    typed = f" and with {', '.join(map(code, words))} in the prompt" * bool(words)
    yield "\n## In InvokeAI\n"
    yield (
        f"It opens no {names.edits} model, so there is no edit in it. The file loads on its "
        f"text-to-image models of the same kind ({names.webui_version}): drawn with it{typed}, "
        "pictures may show what was taught."
    )


def _checkpoint(edit: FirstEdit) -> str:
    """Name the base's single file and where it is from."""
    usual = edit.usual
    if usual is not None and usual.checkpoint == edit.checkpoint:
        return f"{code(edit.checkpoint)}, from https://huggingface.co/{usual.name},"
    return (
        f"The base as one file, {code(edit.checkpoint)} (or the whole model of full-model, with "
        "its own workflow),"
    )
