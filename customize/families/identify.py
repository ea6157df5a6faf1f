"""What kind of model a diffusers folder holds, and for which sizes, by its configs alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from customize.errors import BaseModelError
from customize.families.sampling_defaults import Sampling
from customize.files.parse import load_json

FamilyName = Literal["instruct_pix2pix", "instruct_pix2pix_xl", "flux2_klein"]
BaseKind = Literal["editing", "text_to_image"]

READS: dict[BaseKind, str] = {
    "editing": "an editing model",
    "text_to_image": "a text-to-image model",
}


@dataclass(frozen=True)
class Identified:
    """What the configs of a base tell: its family, the sizes it works at, what else to know of it.

    In pixels, `resolution` is the side of a square, `multiple` what sides divide by in training,
    `edit_multiple` in editing, `least_side` the shortest side in editing. `untrainable` says why no
    adapter can be trained on it, and what to do; `sampling` is its own way where that is not its
    family's; `notice` is to be read before it is used.
    """

    family: FamilyName
    resolution: int
    multiple: int
    edit_multiple: int
    least_side: int
    untrainable: tuple[str, str] | None = None
    sampling: Sampling | None = None
    notice: str | None = None


def family_of(folder: Path, name: str, kind: BaseKind) -> Identified:
    """Identify a base of `kind` by its configs alone.

    Raises BaseModelError for a base of another kind and for configs missing or damaged.
    """
    index = read_json(folder / "model_index.json", name)
    if "transformer" in index:
        from customize.families.flux2 import transformer_bases

        return transformer_bases.identify(index, folder, name, kind)
    if "unet" not in index:
        raise wrong_kind(name, kind, f"a model without a UNet ({index.get('_class_name')})")
    from customize.families.stable_diffusion import unet_bases

    return unet_bases.identify(index, folder, name, kind)


def wrong_kind(name: str, kind: BaseKind, found: str) -> BaseModelError:
    """Word the refusal of a model that is something else."""
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
        content = load_json(path)
    except FileNotFoundError:
        raise BaseModelError(
            f"base {name!r}: {path} is missing; expected a complete diffusers folder "
            "(model_index.json beside a folder for each part)",
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
