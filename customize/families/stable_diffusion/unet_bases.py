"""What bases with a UNet share: what their configs say, and how their pipelines are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.families.identify import (
    READS,
    BaseKind,
    FamilyName,
    Identified,
    read_json,
    wrong_kind,
)
from customize.families.sampling_defaults import Sampling

if TYPE_CHECKING:
    from PIL import Image


def identify(index: dict[str, Any], folder: Path, name: str, kind: BaseKind) -> Identified:
    """Choose the family by what the UNet reads: pipeline names only say how a folder was saved.

    Raises BaseModelError for a base that is not of `kind`.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", name).get("_class_name")
    if str(scheduler).startswith(("EDM", "FlowMatch")):
        raise wrong_kind(name, kind, f"a model with noise levels of its own kind ({scheduler})")
    unet = read_json(folder / "unet" / "config.json", name)
    channels, latents = unet.get("in_channels"), unet.get("out_channels")
    if (found := _reads(channels, latents)) != READS[kind]:
        raise wrong_kind(name, kind, f"{found} ({channels} input channels)")
    family: FamilyName
    match unet.get("addition_embed_type"), "text_encoder_2" in index:
        case None, False:
            family = "instruct_pix2pix"
        case "text_time", True if (index.get("text_encoder") or [None])[0]:
            family = "instruct_pix2pix_xl"
        case told, _:
            raise wrong_kind(name, kind, f"a UNet that is told {told} beside {_texts(index)}")
    vae = read_json(folder / "vae" / "config.json", name)
    latent = 2 ** (len(vae["block_out_channels"]) - 1)
    multiple = latent * 2 ** (len(unet["block_out_channels"]) - 1)
    return Identified(
        family=family,
        resolution=int(unet["sample_size"]) * latent,
        multiple=multiple,
        edit_multiple=latent,
        least_side=multiple,
    )


def edit_arguments(
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    negatives: Sequence[str] | None,
    sampling: Sampling,
) -> dict[str, Any]:
    """Name what both pipelines take."""
    return {
        "prompt": list(instructions),
        "image": list(sources),
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.text_guidance,
        "image_guidance_scale": sampling.image_guidance,
        "negative_prompt": None if negatives is None else list(negatives),
    }


def _reads(channels: int | None, latents: int | None) -> str:
    """Say what a UNet of these input and output channels is for."""
    if channels is None or latents is None:
        return "a UNet of an unknown kind"
    known = {
        latents: READS["text_to_image"],
        2 * latents: READS["editing"],
        2 * latents + 1: "an inpainting model",
    }
    return known.get(channels, "a UNet of an unknown kind")


def _texts(index: dict[str, Any]) -> str:
    found = [part for part in ("text_encoder", "text_encoder_2") if (index.get(part) or [None])[0]]
    return " and ".join(found) or "no text encoder"
