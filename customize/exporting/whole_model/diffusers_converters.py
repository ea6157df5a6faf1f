"""diffusers' own reading of single-file checkpoints, to hold our table of their names against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_SECOND_ENCODER = "conditioner.embedders.1.model."


def convert(tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, Mapping[str, Tensor]]:
    """Return the state dict of each component of `pipeline` that a single file holds."""
    from diffusers.loaders import single_file_utils as converters

    found: dict[str, Mapping[str, Tensor]] = {
        "unet": converters.convert_ldm_unet_checkpoint(dict(tensors), pipeline.unet.config),
        "vae": converters.convert_ldm_vae_checkpoint(dict(tensors), pipeline.vae.config),
        "text_encoder": converters.convert_ldm_clip_checkpoint(dict(tensors)),
    }
    if (second := getattr(pipeline, "text_encoder_2", None)) is not None:
        found["text_encoder_2"] = converters.convert_open_clip_checkpoint(
            second, dict(tensors), _SECOND_ENCODER
        )
    return found
