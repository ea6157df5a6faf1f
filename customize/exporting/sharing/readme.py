"""Tell people which file goes where: notes of each target, and a README over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from customize.drawing.escape import code, markdown, python
from customize.exporting.changes import Changes, LowRankChange
from customize.exporting.file_plan import Content, FilePlan
from customize.exporting.formats.embeddings import file_name
from customize.exporting.formats.module_paths import split_layer
from customize.exporting.sharing.programs import sections
from customize.exporting.targets import Target, Written
from customize.families.profile import Profile, tokenizer_of
from customize.files import write_text

if TYPE_CHECKING:
    from customize.exporting.proof.prove import Proofs
    from customize.exporting.sharing.first_edit import FirstEdit

NAME = "README.md"
_TITLE = "# Which file goes where"
# Above this rank, and these bytes, a file is larger than most that people share.
_LARGE_RANK, _LARGE = 128, 15e6
_WHOLE: frozenset[Target] = frozenset({"custom-diffusion", "full-model"})

USES: Mapping[Target, str] = {
    "kohya": "ComfyUI models/loras, A1111 and Forge models/Lora, InvokeAI's model manager, "
    "kohya's scripts, pipe.load_lora_weights",
    "diffusers": "pipe.load_lora_weights(folder)",
    "comfyui": "ComfyUI models/loras, with LoraLoader; the workflow beside it makes an edit",
    "a1111": "A1111 and Forge models/Lora; A1111 reads words from this file, Forge does not: put "
    "the embedding files in embeddings/ there, and for many words use the target kohya",
    "invokeai": "InvokeAI's model manager",
    "peft": "PeftModel.from_pretrained(pipe.{denoiser}, folder), the text encoder's likewise",
    "custom-diffusion": "pipe.{denoiser}.load_attn_procs(folder, weight_name=..., _pipeline=pipe); "
    "diffusers 0.42 sets nothing without _pipeline",
    "full-model": "a whole model",
}


def write_readme(
    folder: Path,
    written: Sequence[Written],
    missing: Mapping[Target, str],
    proofs: Proofs | None = None,
    *,
    edit: FirstEdit,
) -> Path:
    """Write the README in place of an older one and return its path; `edit` is how to begin."""
    path = folder / NAME
    write_text(path, "\n".join(_lines(written, missing, proofs, edit)) + "\n")
    return path


def _lines(
    written: Sequence[Written],
    missing: Mapping[Target, str],
    proofs: Proofs | None,
    edit: FirstEdit,
) -> Iterator[str]:
    kind = edit.profile.front_ends.edits
    yield f"{_TITLE}\n"
    yield f"All of these edit pictures by a model of the kind {kind}, which they need to work on."
    yield _read_back(proofs)
    yield "| folder | size | largest relative error of a layer |"
    yield "| --- | --- | --- |"
    for one in written:
        size = sum(path.stat().st_size for path in one.files) / 1e6
        yield f"| {one.target} | {size:.1f} MB | {error_told(one)} |"
    yield from sections(edit, [one.target for one in written])
    for one in written:
        yield f"\n## {one.target}\n"
        yield from (f"- {note}" for note in one.notes)
        proof = proofs.proved.get(one.target) if proofs else None
        if proof is not None and proof.change is not None:
            yield f"- the adapter was cut; {proof.change}"
    if missing:
        yield "\n## Not written\n"
        yield from (f"- {markdown(reason)}" for reason in missing.values())


def error_told(written: Written) -> str:
    """Say how much of a layer's change was lost, where layers' changes are what was written."""
    if written.errors:
        return f"{written.largest_error:.1e}"
    return "whole weights" if written.target in _WHOLE else "words alone"


def _read_back(proofs: Proofs | None) -> str:
    if proofs is None:
        return "They were not read back.\n"
    if proofs.unproven:
        return f"They were read back by customize alone, without edits: {proofs.unproven}\n"
    return "Each was read back and compared with the adapter.\n"


def notes_of(target: Target, plan: FilePlan, fitted: Changes, profile: Profile) -> Iterator[str]:
    """Tell what people must do with the files, and what the target does not read."""
    names = [name for name, content in plan.items() if isinstance(content, Content)]
    yield f"{', '.join(names)}: {USES[target].format(denoiser=profile.denoiser)}"
    ranks = [len(c.down) for c in fitted.layers.values() if isinstance(c, LowRankChange)]
    if max(ranks, default=0) > _LARGE_RANK and _bytes(plan) > _LARGE:
        yield f"ranks go up to {max(ranks)}: --size-mb 15 or --energy 0.6 make smaller files"
    if target == "kohya":
        yield from _unread(fitted)
    yield from notes_of_words(fitted)


def _bytes(plan: FilePlan) -> int:
    contents = (content for content in plan.values() if isinstance(content, Content))
    return sum(tensor.nbytes for content in contents for tensor in content.tensors.values())


def notes_of_words(changes: Changes) -> Iterator[str]:
    """Tell where each word's embedding file goes, and what people write."""
    for word, rows in changes.words.items():
        name = file_name(word)
        load = _LOAD_BOTH if len(rows) > 1 else _LOAD
        last = max(rows)
        yield (
            f"embeddings/{name}.safetensors: for {code(word)} write `embedding:{name}` in ComfyUI, "
            f"`{name}` in A1111 and Forge, `<{name}>` in InvokeAI; diffusers: "
            f"{_filled(load, word, last)}"
        )


def _filled(load: str, word: str, encoder: str) -> str:
    """Put names of the base and, last, the word, which may be any text, into a call."""
    call = load.replace("TOKENIZER", tokenizer_of(encoder)).replace("ENCODER", encoder)
    return call.replace("WORD", python(word))


def _unread(changes: Changes) -> Iterator[str]:
    """Tell of layers that not every reader of kohya's names takes (docs/frontends.md)."""
    paths = [split_layer(layer)[1] for layer in changes.layers]
    if outside := [path for path in paths if path.startswith(_NOT_IN_KOHYA)]:
        yield f"kohya's scripts leave out {len(outside)} layers such as {outside[0]}"
    if any(path.startswith("add_embedding.") for path in paths):
        yield "InvokeAI refuses the file, for it changes add_embedding"


_NOT_IN_KOHYA = ("conv_in", "conv_out", "time_embedding.", "add_embedding.")
_LOAD = "`load_textual_inversion(file, token=WORD)`"
_LOAD_BOTH = (
    '`load_textual_inversion(tensors["clip_l"], token=WORD, text_encoder=pipe.text_encoder, '
    "tokenizer=pipe.tokenizer)`, the same with clip_g and the second encoder and tokenizer; then "
    "set eos_token_id to pipe.TOKENIZER.eos_token_id on the modules of pipe.ENCODER that "
    "have it, or the word's own row is pooled"
)
