"""FLUX.2 klein: a transformer that reads the picture, its sources and a text as one sequence.

Conditions: `source` (C, h, w), the source picture's normalized latent, `source_2` and so on those
of further sources, and `text` (L, D).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from customize.errors import BaseModelError
from customize.families import Dropout
from customize.families.base import Base
from customize.families.flow_matching import FlowMatching
from customize.families.flux2.packing import (
    as_source,
    normalized,
    patched,
    picture_places,
    text_places,
    tokens,
)
from customize.families.flux2.profiles import KLEIN
from customize.families.flux2.qwen_text import encode_text
from customize.families.loading.parts import load_part, load_pipeline, load_tokenizer
from customize.families.loading.quiet import hush
from customize.families.profile import Profile
from customize.families.sampling_defaults import Sampling
from customize.families.words import Word
from customize.shapes import Conditions, Encoded, Example


@dataclass(frozen=True)
class Flux2Klein:
    """The denoiser and what training knows of it; `dtype` is its weights', wrapped or not."""

    denoiser: nn.Module
    objective: FlowMatching
    dtype: torch.dtype
    text_encoders: Mapping[str, nn.Module] = field(default_factory=dict)
    tokenizers: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile = KLEIN
    text_pattern: str = r"(?!)"

    def predict(self, noisy_BChw: Tensor, level_B: Tensor, conditions: Conditions) -> Tensor:
        """Read picture, sources and text as one sequence; (B, C, h, w) float32."""
        sources = sorted((k for k in conditions if k.startswith("source")), key=_number)
        pictures_BChw = [noisy_BChw, *(conditions[key] for key in sources)]
        text_BLD = conditions["text"].to(self.dtype)
        predicted_BLC = self.denoiser(
            hidden_states=tokens(pictures_BChw).to(self.dtype),
            encoder_hidden_states=text_BLD,
            timestep=level_B,
            img_ids=picture_places(pictures_BChw),
            txt_ids=text_places(text_BLD),
            return_dict=False,
        )[0]
        height, width = noisy_BChw.shape[-2:]
        own_BLC = predicted_BLC[:, : height * width]
        return own_BLC.transpose(1, 2).unflatten(2, (height, width)).float()

    def drop(
        self,
        conditions: Conditions,
        empty_text: Mapping[str, Tensor],
        uniform_B: Tensor,
        dropout: Dropout,
    ) -> Conditions:
        """Hide the text alone: guidance compares with an empty text, and always with the source."""
        no_text_B11 = (uniform_B < dropout.text).view(-1, 1, 1)
        text_BLD = torch.where(no_text_B11, empty_text["text"], conditions["text"])
        return {**conditions, "text": text_BLD}


@dataclass(frozen=True)
class Flux2KleinEncoder:
    """The base's VAE in float32, its text encoder and its tokenizer.

    Sides of pictures are multiples of `multiple` pixels.
    """

    vae: Any
    text_encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    multiple: int

    def encode(self, example: Example, *, as_tokens: bool) -> Encoded:
        """Encode as the base was trained: every picture's mode, so that targets never vary."""
        target_Chw = self._latent(Image.fromarray(example.target_HWC))
        conditions = dict(self.text(example.instruction, as_tokens=as_tokens))
        for number, source_HWC in enumerate((example.source_HWC, *example.references_HWC), start=1):
            source = as_source(Image.fromarray(source_HWC), self.multiple)
            conditions["source" if number == 1 else f"source_{number}"] = self._latent(source)
        return Encoded(target_Chw, torch.zeros_like(target_Chw), conditions)

    def text(self, instruction: str, *, as_tokens: bool) -> Mapping[str, Tensor]:
        """Encode to `text` (L, D), in the text encoder's precision."""
        assert not as_tokens, "texts of this family are never learned"
        (text_encoder,), (tokenizer,) = self.text_encoders.values(), self.tokenizers.values()
        return {"text": encode_text(text_encoder, tokenizer, instruction)}

    @torch.no_grad()
    def _latent(self, picture: Image.Image) -> Tensor:
        pixels_BCHW = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        distribution = self.vae.encode(pixels_BCHW.to(self.vae.device, self.vae.dtype)).latent_dist
        latent_Chw = normalized(self.vae, patched(distribution.mode()))[0].float().cpu()
        if not latent_Chw.isfinite().all():
            raise BaseModelError(
                "the base's VAE turns a picture into latents that are no numbers, computing in "
                f"{self.vae.dtype}; expected finite ones",
                "its weights are damaged: download them again",
            )
        return latent_Chw


def open_family(
    base: Base, device: torch.device | str, dtype: torch.dtype | None, learns_text: bool
) -> Flux2Klein:
    """Load the frozen transformer."""
    assert not learns_text, "texts of this family are never learned"
    hush()
    from diffusers import Flux2Transformer2DModel

    dtype = dtype or base.dtype(device)
    return Flux2Klein(
        denoiser=load_part(Flux2Transformer2DModel, base, "transformer", device, dtype),
        objective=FlowMatching(steps=KLEIN.sampling.steps),
        dtype=dtype,
    )


def open_encoder(
    base: Base, device: torch.device | str, words: Sequence[Word], reads_text: bool
) -> Flux2KleinEncoder:
    """Load the VAE in float32, and Qwen3 in the base's precision: 4 B weights would be 16 GB."""
    assert not words, "no word of this family is learned"
    hush()
    from diffusers import AutoencoderKLFlux2
    from transformers import Qwen3ForCausalLM

    text_encoders = {}
    if reads_text:
        dtype = base.dtype(device)
        text_encoder = load_part(Qwen3ForCausalLM, base, "text_encoder", device, dtype)
        text_encoders["text_encoder"] = text_encoder
    return Flux2KleinEncoder(
        vae=load_part(AutoencoderKLFlux2, base, "vae", device, torch.float32),
        text_encoders=text_encoders,
        tokenizers={"tokenizer": load_tokenizer(base)},
        multiple=base.multiple,
    )


def open_pipeline(
    base: Base,
    device: torch.device | str,
    dtype: torch.dtype | None,
    denoiser: nn.Module | None,
) -> Any:
    """Load diffusers' pipeline, which edits each picture by its own instruction here."""
    hush()
    from customize.families.flux2.editing_pipeline import EachItsOwnSource

    open_part = {"transformer": denoiser} if denoiser else {}
    return load_pipeline(EachItsOwnSource, base, device, dtype, **open_part)


def pipeline_arguments(
    pipeline: Any,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    negatives: Sequence[str] | None,
    sampling: Sampling,
) -> dict[str, Any]:
    """Ask for edits at the size of the sources, which are shrunk where they are too large."""
    from customize.families.flux2.editing_pipeline import edit_arguments

    return edit_arguments(pipeline, sources, instructions, negatives, sampling)


def _number(source: str) -> int:
    """Count sources: `source`, `source_2`, `source_10`."""
    return int(source.partition("_")[2] or 1)
