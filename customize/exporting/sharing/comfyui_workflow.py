"""A workflow that ComfyUI opens and runs: one edit, with this adapter's files, words and settings.

It is in the form that ComfyUI's window opens and its server takes (`/prompt`). The two guidances of
InstructPix2Pix are those of the node DualCFGGuider, style "regular": prediction without anything
(`negative`), with the picture (`cond2`), with picture and instruction (`cond1`). Brooks et al.
2023, arXiv 2211.09800, equation 3.
"""

from __future__ import annotations

import json
import re
from typing import Any

from customize.exporting.file_plan import FilePlan
from customize.exporting.formats.trigger_words import typed_in
from customize.exporting.sharing.first_edit import FirstEdit
from customize.families.words import replace_words

SAMPLERS = {
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "uni_pc",
    "DDIMScheduler": "ddim",
}
"""ComfyUI's names of diffusers' samplers; others begin with Euler's."""
_BRACKETS = re.compile(r"([()\\])")


def file_of(edit: FirstEdit) -> str:
    """Name the workflow's file."""
    return f"{edit.name}.workflow.json"


def plan_workflow(edit: FirstEdit, *, whole: bool = False) -> FilePlan:
    """Plan the workflow beside an adapter's files or, for the `whole` model, beside its file.

    Nothing is planned for bases that ComfyUI makes no edits with.
    """
    if not edit.profile.front_ends.comfyui or edit.diffusers_alone:
        return {}
    return {file_of(edit): json.dumps(workflow(edit, whole=whole), indent=2) + "\n"}


def prompt(edit: FirstEdit) -> str:
    """Write the instruction as people type it there."""
    told = {word: typed_in(word, "comfyui") for word in edit.words}
    # Round brackets mean emphasis there.
    return _BRACKETS.sub(r"\\\1", replace_words(edit.instruction, told))


def workflow(edit: FirstEdit, *, whole: bool = False) -> dict[str, Any]:
    """Return the nodes by number, each input a value or another node's output."""
    lora = edit.changes_layers and not whole
    checkpoint = f"{edit.name}.safetensors" if whole else edit.checkpoint
    model = ["2", 0] if lora else ["1", 0]
    clip = ["2", 1] if lora else ["1", 1]
    sampling, vae = edit.sampling, ["1", 2]
    nodes = {
        "1": _node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "2": _node(
            "LoraLoader",
            model=["1", 0],
            clip=["1", 1],
            lora_name=f"{edit.name}.safetensors",
            strength_model=1.0,
            strength_clip=1.0,
        ),
        "3": _node("LoadImage", image="picture.png"),
        "4": _node(
            "ImageScaleToTotalPixels",
            image=["3", 0],
            upscale_method="lanczos",
            megapixels=round(edit.side**2 / 1024**2, 4),
            resolution_steps=8,
        ),
        "5": _node("CLIPTextEncode", clip=clip, text=prompt(edit)),
        "6": _node("CLIPTextEncode", clip=clip, text=""),
        "7": _node(
            "InstructPixToPixConditioning",
            positive=["5", 0],
            negative=["6", 0],
            vae=vae,
            pixels=["4", 0],
        ),
        "8": _node(
            "DualCFGGuider",
            model=model,
            cond1=["7", 0],
            cond2=["7", 1],
            negative=["6", 0],  # without the picture, as it was before node 7
            cfg_conds=sampling.text_guidance,
            cfg_cond2_negative=sampling.image_guidance,
            style="regular",
        ),
        "9": _node("RandomNoise", noise_seed=0),
        "10": _node("KSamplerSelect", sampler_name=SAMPLERS.get(edit.scheduler, "euler")),
        "11": _node(
            "BasicScheduler", model=model, scheduler="normal", steps=sampling.steps, denoise=1.0
        ),
        "12": _node(
            "SamplerCustomAdvanced",
            noise=["9", 0],
            guider=["8", 0],
            sampler=["10", 0],
            sigmas=["11", 0],
            latent_image=["7", 2],
        ),
        "13": _node("VAEDecode", samples=["12", 0], vae=vae),
        "14": _node("SaveImage", images=["13", 0], filename_prefix=edit.name),
    }
    if not lora:
        del nodes["2"]
    return nodes


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}
