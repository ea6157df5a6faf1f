"""What kind of model a diffusers folder holds, by its configs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from customize.errors import BaseModelError

FamilyName = Literal["instruct_pix2pix", "instruct_pix2pix_xl"]
Kind = Literal["editing", "text_to_image"]

_READS: dict[Kind, str] = {
    "editing": "an editing model",
    "text_to_image": "a text-to-image model",
}


def family_of(folder: Path, name: str, kind: Kind) -> tuple[FamilyName, dict[str, Any]]:
    """Identify a base of `kind` by its configs alone; also returns its UNet's.

    Raises BaseModelError for a base of another kind and for configs missing or damaged.
    """
    index = read_json(folder / "model_index.json", name)
    if "transformer" in index:
        raise _wrong_kind(name, kind, f"a transformer model ({index.get('_class_name')})")
    if "unet" not in index:
        raise _wrong_kind(name, kind, f"a model without a UNet ({index.get('_class_name')})")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", name).get("_class_name")
    if str(scheduler).startswith(("EDM", "FlowMatch")):
        raise _wrong_kind(name, kind, f"a model with noise levels of its own kind ({scheduler})")
    unet = read_json(folder / "unet" / "config.json", name)
    return _identify(index, unet, name, kind), unet


def _identify(index: dict[str, Any], unet: dict[str, Any], name: str, kind: Kind) -> FamilyName:
    """Choose the family by what the UNet reads: pipeline names only say how a folder was saved."""
    channels, latents = unet.get("in_channels"), unet.get("out_channels")
    if (found := _reads(channels, latents)) != _READS[kind]:
        raise _wrong_kind(name, kind, f"{found} ({channels} input channels)")
    match unet.get("addition_embed_type"), "text_encoder_2" in index:
        case None, False:
            return "instruct_pix2pix"
        case "text_time", True if (index.get("text_encoder") or [None])[0]:
            return "instruct_pix2pix_xl"
        case told, _:
            raise _wrong_kind(name, kind, f"a UNet that is told {told} beside {_texts(index)}")


def _reads(channels: int | None, latents: int | None) -> str:
    """Say what a UNet of these input and output channels is for."""
    if channels is None or latents is None:
        return "a UNet of an unknown kind"
    known = {
        latents: _READS["text_to_image"],
        2 * latents: _READS["editing"],
        2 * latents + 1: "an inpainting model",
    }
    return known.get(channels, "a UNet of an unknown kind")


def _texts(index: dict[str, Any]) -> str:
    found = [part for part in ("text_encoder", "text_encoder_2") if (index.get(part) or [None])[0]]
    return " and ".join(found) or "no text encoder"


def _wrong_kind(name: str, kind: Kind, found: str) -> BaseModelError:
    if kind == "text_to_image":
        return BaseModelError(
            f"start {name!r}: this is {found}; expected a text-to-image model of the Stable "
            "Diffusion 1 or SDXL kind (4 input channels)",
            "name such a model, for example 'stable-diffusion-v1-5/stable-diffusion-v1-5'",
        )
    return BaseModelError(
        f"base {name!r}: this is {found}; expected an InstructPix2Pix model of the Stable "
        "Diffusion 1 or SDXL kind, whose UNet reads the noisy picture and the source picture (8 "
        "input channels)",
        "name such a base, for example 'timbrooks/instruct-pix2pix', "
        "'diffusers/sdxl-instructpix2pix-768' or 'embedded'",
    )


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read one of the configs of base `name`; raises BaseModelError for a missing or odd one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(
            f"base {name!r}: {path} is missing; expected a complete diffusers folder "
            "(model_index.json beside unet, vae, text_encoder, tokenizer, scheduler)",
            "save or download the whole model",
        ) from None
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"base {name!r}: {path} cannot be read ({error}); expected JSON",
            "download the model again",
        ) from None
    if not isinstance(content, dict):
        raise BaseModelError(
            f"base {name!r}: {path} holds no JSON object", "download the model again"
        )
    return content
