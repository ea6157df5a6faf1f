"""diffusers' pipeline of FLUX.2 klein, with a source for each instruction, and how it is asked.

By itself it takes every picture as a reference of every instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from torch import Tensor

from customize.errors import EditError
from customize.families.flux2.qwen_text import LENGTH, read_layers
from customize.families.sampling_defaults import Sampling

WIDEST = 8
"""Longest side by the shortest one; diffusers' pipeline takes no longer picture."""


class EachItsOwnSource(Flux2KleinPipeline):
    """Edit several pictures of one size at once, each by its own instruction."""

    def prepare_image_latents(
        self, images: list[Tensor], batch_size: int, generator: Any, device: Any, dtype: Any
    ) -> tuple[Tensor, Tensor]:
        """Give each of the batch its own picture; with references an edit is made alone."""
        if batch_size != len(images):
            return super().prepare_image_latents(images, batch_size, generator, device, dtype)
        pixels_BCHW = torch.cat(images).to(self.vae.device, dtype)
        latents_BChw = self._encode_vae_image(pixels_BCHW, generator)
        places_BL4 = self._prepare_image_ids([latents_BChw[:1]]).expand(batch_size, -1, -1)
        return self._pack_latents(latents_BChw).to(device), places_BL4.to(device)


def edit_arguments(
    pipeline: Any,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    negatives: Sequence[str] | None,
    sampling: Sampling,
) -> dict[str, Any]:
    """Name what the pipeline takes; raises EditError for pictures that it would refuse."""
    width, height = sources[0].size
    if max(width, height) > WIDEST * min(width, height):
        raise EditError(
            f"a picture of {width}x{height} pixels; expected one at most {WIDEST} times as long as "
            "it is wide; crop it"
        )
    layers = read_layers(pipeline.text_encoder)
    negative: dict[str, Any] = {}
    if negatives is not None and sampling.text_guidance > 1:
        negative_BLD, _ = pipeline.encode_prompt(
            list(negatives), max_sequence_length=LENGTH, text_encoder_out_layers=layers
        )
        negative["negative_prompt_embeds"] = negative_BLD
    return {
        "prompt": list(instructions),
        "image": list(sources),
        "height": height,
        "width": width,
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.text_guidance,
        "max_sequence_length": LENGTH,
        "text_encoder_out_layers": layers,
        **negative,
    }
