"""Which single-file checkpoints can serve as a base, and what the others are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from customize.errors import BaseModelError
from customize.families.identify import BaseKind
from customize.families.loading.weight_files import check_safetensors
from customize.families.single_file.configs import FIRST_TEXT, UNET, VAE, is_xl

_CONV_IN = f"{UNET}input_blocks.0.0.weight"
_CHANNELS: Mapping[BaseKind, int] = {"editing": 8, "text_to_image": 4}
_PICKLES = {".ckpt", ".pt", ".pth", ".bin"}
_TRANSFORMERS = ("double_blocks.", "transformer_blocks.", "joint_blocks.", "single_blocks.")


def check_kind(path: Path, owner: str, kind: BaseKind) -> None:
    """Refuse, in the name of `owner`, any file but a Stable Diffusion 1 or SDXL one of `kind`."""
    if path.suffix != ".safetensors":
        found = (
            f"a {path.suffix} file is a pickle, which can run code when it is opened"
            if path.suffix in _PICKLES
            else f"a {path.suffix or 'nameless'} file is no model"
        )
        raise BaseModelError(
            f"{owner}: {found}; expected .safetensors", "take the model's safetensors version"
        )
    if found := _wrong(check_safetensors(path, owner), _CHANNELS[kind]):
        wanted = {"editing": "an InstructPix2Pix", "text_to_image": "a text-to-image"}[kind]
        raise BaseModelError(
            f"{owner}: this is {found}; expected {wanted} checkpoint of the Stable Diffusion 1 or "
            f"SDXL kind ({_CHANNELS[kind]} input channels)",
            "name such a one",
        )


def _wrong(shapes: Mapping[str, tuple[int, ...]], wanted: int) -> str | None:
    """Say what a file with tensors of these shapes is, None for one of `wanted` channels."""
    if _CONV_IN not in shapes:
        return _no_checkpoint(list(shapes))
    if any(name.startswith("edm_") for name in shapes):
        return "a checkpoint with EDM noise levels (CosXL, Playground)"
    if (channels := shapes[_CONV_IN][1]) != wanted:
        kind = {4: "a text-to-image", 8: "an editing", 9: "an inpainting"}.get(channels, "a")
        return f"{kind} checkpoint ({channels} input channels)"
    if any(name.startswith("cond_stage_model.model.") for name in shapes):
        return "a Stable Diffusion 2 checkpoint"
    for part, start in (("VAE", VAE), ("text encoder", FIRST_TEXT[is_xl(shapes)])):
        if not any(name.startswith(start) for name in shapes):
            return f"a checkpoint without a {part}"
    return None


def _no_checkpoint(names: list[str]) -> str:
    if any(".lora_" in name or name.startswith("lora") for name in names):
        return "an adapter (LoRA), not a base"
    if any(start in name for name in names for start in _TRANSFORMERS):
        return "a transformer model"
    if any(name.startswith(("down_blocks.", "conv_in.")) for name in names):
        return "a UNet alone in diffusers' names"
    return "no Stable Diffusion checkpoint (perhaps a component alone)"
