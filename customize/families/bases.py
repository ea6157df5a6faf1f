"""From what the recipe calls its base to a checked folder of weights on this machine.

A base is `embedded`, a diffusers folder, a hub id, or a single-file checkpoint. Only safetensors
are read: a pickle can run code when it is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from customize.errors import BaseModelError
from customize.families.weight_files import component_files, fingerprint

if TYPE_CHECKING:
    import torch

FamilyName = Literal["instruct_pix2pix", "instruct_pix2pix_xl"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded" / "weights"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMPONENTS: Mapping[FamilyName, tuple[str, ...]] = {
    "instruct_pix2pix": ("unet", "vae", "text_encoder"),
    "instruct_pix2pix_xl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}


@dataclass(frozen=True)
class Base:
    """A base found, identified and checked, not yet loaded.

    `name` is what the user typed; `resolution` its native picture side and `multiple` what sides
    must divide by, in pixels; `variant` the file variant to load (`fp16` where nothing else is
    there).
    """

    name: str
    folder: Path
    family: FamilyName
    fingerprint: str
    resolution: int
    multiple: int
    precision: Precision = "auto"
    variant: str | None = None

    def dtype(self, device: torch.device | str) -> torch.dtype:
        """Return the precision of weights on `device`; `auto` is float32 except on CUDA."""
        import torch

        if self.precision != "auto":
            return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
                self.precision
            ]
        if torch.device(device).type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def resolve_base(
    name: str = "embedded", revision: str | None = None, precision: Precision = "auto"
) -> Base:
    """Find the base called `name`, fetch or convert it where needed, and identify its family.

    Raises BaseModelError for what is missing, unreadable, unsafe or of a kind that cannot be
    trained.
    """
    folder = _locate(name, revision)
    family, unet = _family_of(folder, name)
    files, variants = [], set[str | None]()
    for component in _COMPONENTS[family]:
        found, variant = component_files(folder / component, f"base {name!r}")
        files += found
        variants.add(variant)
    vae = _read_json(folder / "vae" / "config.json", name)
    latent = 2 ** (len(vae["block_out_channels"]) - 1)
    return Base(
        name=name,
        folder=folder,
        family=family,
        fingerprint=fingerprint(files, folder),
        resolution=int(unet["sample_size"]) * latent,
        multiple=latent * 2 ** (len(unet["block_out_channels"]) - 1),
        precision=precision,
        variant=next((v for v in variants if v), None),
    )


def _locate(name: str, revision: str | None) -> Path:
    if name == "embedded":
        if not (EMBEDDED / "model_index.json").is_file():
            raise BaseModelError(
                f"base 'embedded': its weights are not at {EMBEDDED}; expected them to come with "
                "the package; "
                "install the package again or run `customize fit-base recipes/base/embedded.yaml`"
            )
        return EMBEDDED
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        from customize.families.single_file import convert

        return convert(path)
    if _HUB_ID.fullmatch(name) and path.suffix != ".safetensors":
        from customize.families.hub import download

        return download(name, revision, check=lambda folder: _family_of(folder, name))
    raise BaseModelError(
        f"base {name!r}: there is no such file or folder and it is no hub id; expected 'embedded', "
        "a diffusers folder, "
        "a .safetensors checkpoint or a hub id such as 'timbrooks/instruct-pix2pix'; check the "
        "spelling"
    )


def _family_of(folder: Path, name: str) -> tuple[FamilyName, dict[str, Any]]:
    """Identify a base by its configs alone; also returns its UNet's."""
    index = _read_json(folder / "model_index.json", name)
    if "transformer" in index:
        raise _wrong_kind(name, f"a transformer model ({index.get('_class_name')})")
    if "unet" not in index:
        raise _wrong_kind(name, f"a model without a UNet ({index.get('_class_name')})")
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json", name).get("_class_name")
    if str(scheduler).startswith(("EDM", "FlowMatch")):
        raise _wrong_kind(name, f"a model with noise levels of its own kind ({scheduler})")
    unet = _read_json(folder / "unet" / "config.json", name)
    return _identify(index, unet, name), unet


def _identify(index: dict[str, Any], unet: dict[str, Any], name: str) -> FamilyName:
    """Choose the family by what the UNet reads: pipeline names only say how a folder was saved."""
    channels, latents = unet.get("in_channels"), unet.get("out_channels")
    if channels == latents:
        raise _wrong_kind(name, f"a text-to-image model ({channels} input channels)")
    if latents is not None and channels == 2 * latents + 1:
        raise _wrong_kind(name, f"an inpainting model ({channels} input channels)")
    if latents is None or channels != 2 * latents:
        raise _wrong_kind(name, f"a UNet with {channels} input and {latents} output channels")
    match unet.get("addition_embed_type"), "text_encoder_2" in index:
        case None, False:
            return "instruct_pix2pix"
        case "text_time", True if (index.get("text_encoder") or [None])[0]:
            return "instruct_pix2pix_xl"
        case told, _:
            raise _wrong_kind(name, f"a UNet that is told {told} beside {_texts(index)}")


def _texts(index: dict[str, Any]) -> str:
    found = [part for part in ("text_encoder", "text_encoder_2") if (index.get(part) or [None])[0]]
    return " and ".join(found) or "no text encoder"


def _wrong_kind(name: str, found: str) -> BaseModelError:
    return BaseModelError(
        f"base {name!r}: this is {found}; expected an InstructPix2Pix model of the Stable "
        "Diffusion 1 or SDXL kind, whose UNet reads the noisy picture and the source picture (8 "
        "input channels); name such a base, for example 'timbrooks/instruct-pix2pix', "
        "'diffusers/sdxl-instructpix2pix-768' or 'embedded'"
    )


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseModelError(
            f"base {name!r}: {path} is missing; expected a complete diffusers folder "
            "(model_index.json beside unet, "
            "vae, text_encoder, tokenizer, scheduler); save or download the whole model"
        ) from None
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"base {name!r}: {path} cannot be read ({error}); expected JSON; download the model "
            "again"
        ) from None
    if not isinstance(content, dict):
        raise BaseModelError(
            f"base {name!r}: {path} holds no JSON object; download the model again"
        )
    return content
