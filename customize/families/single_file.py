"""Turn a single-file checkpoint (original Stable Diffusion names) into a diffusers folder, once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from customize.errors import BaseModelError
from customize.families.weight_files import check_safetensors, fingerprint

_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
_SDXL = "conditioner.embedders.1.model.text_projection"


def convert(path: Path) -> Path:
    """Return the folder converted from `path`, kept in the cache under the file's fingerprint.

    The cache is `$CUSTOMIZE_CACHE`, else `~/.cache/customize`. Configs and tokenizer, which such a
    file lacks, come from `timbrooks/instruct-pix2pix` on the hub or its local cache. Raises
    BaseModelError.
    """
    _check(path)
    cache = Path(os.environ.get("CUSTOMIZE_CACHE", "~/.cache/customize")).expanduser() / "bases"
    folder = cache / fingerprint([path], path.parent)[:32]
    if (folder / "model_index.json").is_file():
        return folder
    from customize.families.quiet import hush, quiet_loading

    hush()
    from diffusers import StableDiffusionInstructPix2PixPipeline

    try:
        with quiet_loading():
            pipeline = StableDiffusionInstructPix2PixPipeline.from_single_file(
                str(path), safety_checker=None
            )
    except Exception as error:  # the converter raises whatever its many parts raise
        raise BaseModelError(
            f"base '{path}': converting it failed ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); expected a "
            "Stable Diffusion 1 InstructPix2Pix checkpoint, and the configs of "
            "'timbrooks/instruct-pix2pix' from the hub or "
            "its cache; connect once, or name a diffusers folder as the base"
        ) from error
    _keep(pipeline, folder)
    return folder


def _check(path: Path) -> None:
    owner = f"base '{path}'"
    if path.suffix != ".safetensors":
        raise BaseModelError(
            f"{owner}: a {path.suffix or 'nameless'} file is read as no model, since a pickle can "
            "run code; expected "
            ".safetensors; take the model's safetensors version"
        )
    shapes = check_safetensors(path, owner)
    found = None
    if _CONV_IN not in shapes:
        found = "no Stable Diffusion checkpoint (perhaps a LoRA, or a component alone)"
    elif _SDXL in shapes:
        found = "an SDXL checkpoint"
    elif (channels := shapes[_CONV_IN][1]) != 8:
        kind = {4: "a text-to-image", 9: "an inpainting"}.get(channels, "a")
        found = f"{kind} checkpoint ({channels} input channels)"
    if found:
        raise BaseModelError(
            f"{owner}: this is {found}; expected an InstructPix2Pix checkpoint of the Stable "
            "Diffusion 1 kind (8 input "
            "channels); name such a base"
        )


def _keep(pipeline: object, folder: Path) -> None:
    """Save under a temporary name first: a killed conversion leaves nothing that looks whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        pipeline.save_pretrained(temporary)  # type: ignore[attr-defined]
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
