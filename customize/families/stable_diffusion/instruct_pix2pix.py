"""InstructPix2Pix on Stable Diffusion 1 (arXiv 2211.09800): an 8-channel UNet that reads CLIP text.

Conditions: `source` (4, h, w), the source picture's latent, and either `text` (L, D) or `token_ids`
(L,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from customize.families import Dropout
from customize.families.base import Base
from customize.families.loading.parts import (
    load_objective,
    load_part,
    load_pipeline,
    load_tokenizer,
    longest_text,
)
from customize.families.loading.quiet import hush
from customize.families.objective import Objective
from customize.families.profile import Profile
from customize.families.sampling_defaults import Sampling
from customize.families.stable_diffusion.conditions import encode_pair, hide_conditions, token_ids
from customize.families.stable_diffusion.profiles import SD1
from customize.families.stable_diffusion.unet_bases import edit_arguments
from customize.families.words import Word, add_words
from customize.shapes import Conditions, Encoded, Example


@dataclass(frozen=True)
class InstructPix2Pix:
    """The denoiser and what training knows of it; `dtype` is its weights', wrapped or not."""

    denoiser: nn.Module
    objective: Objective
    dtype: torch.dtype
    text_encoders: Mapping[str, nn.Module] = field(default_factory=dict)
    tokenizers: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile = SD1
    text_pattern: str = r"text_encoder\..*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"

    def predict(self, noisy_BChw: Tensor, level_B: Tensor, conditions: Conditions) -> Tensor:
        """Stack the source's latent under the noisy one and read the text; (B, 4, h, w) float32."""
        if "text" in conditions:
            text_BLD = conditions["text"]
        else:
            text_BLD = self.text_encoders["text_encoder"](conditions["token_ids"])[0]
        stacked_BChw = torch.cat([noisy_BChw, conditions["source"]], dim=1)
        return self.denoiser(
            stacked_BChw.to(self.dtype),
            level_B,
            encoder_hidden_states=text_BLD.to(self.dtype),
            return_dict=False,
        )[0].float()

    def drop(
        self,
        conditions: Conditions,
        empty_text: Mapping[str, Tensor],
        uniform_B: Tensor,
        dropout: Dropout,
    ) -> Conditions:
        """Hide text, source or both, as the paper's code does."""
        return hide_conditions(conditions, empty_text, uniform_B, dropout)


@dataclass(frozen=True)
class InstructPix2PixEncoder:
    """The base's VAE and text encoder in float32, and its tokenizer, which knows `words`.

    `longest` is how many tokens the text encoder reads, which is not there where all are tokens.
    """

    vae: Any
    text_encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    longest: int
    words: tuple[Word, ...]

    def encode(self, example: Example, *, as_tokens: bool) -> Encoded:
        """Encode as the base was trained: the target scaled, the source's mode unscaled."""
        pictures = encode_pair(self.vae, example)
        text = self.text(example.instruction, as_tokens=as_tokens)
        return replace(pictures, conditions={**pictures.conditions, **text})

    @torch.no_grad()
    def text(self, instruction: str, *, as_tokens: bool) -> Mapping[str, Tensor]:
        """Encode to `token_ids` (L,) or `text` (L, D); warns when the instruction is longer."""
        tokenizer = self.tokenizers["tokenizer"]
        ids_L = token_ids(tokenizer, instruction, self.words, longest=self.longest)
        if as_tokens:
            return {"token_ids": ids_L}
        assert not self.words, "the text encoder does not know the words: encode as tokens"
        assert self.text_encoders, "opened without text encoder: encode as tokens"
        text_encoder = self.text_encoders["text_encoder"]
        return {"text": text_encoder(ids_L[None].to(text_encoder.device))[0][0].cpu()}


def open_family(
    base: Base, device: torch.device | str, dtype: torch.dtype | None, learns_text: bool
) -> InstructPix2Pix:
    """Load the frozen UNet, with the frozen text encoder and tokenizer when text is learned."""
    hush()
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    dtype = dtype or base.dtype(device)
    family = InstructPix2Pix(
        denoiser=load_part(UNet2DConditionModel, base, "unet", device, dtype),
        objective=load_objective(base).to(device),
        dtype=dtype,
    )
    if not learns_text:
        return family
    text_encoder = load_part(CLIPTextModel, base, "text_encoder", device, dtype)
    return replace(
        family,
        text_encoders={"text_encoder": text_encoder},
        tokenizers={"tokenizer": load_tokenizer(base)},
    )


def open_encoder(
    base: Base, device: torch.device | str, words: Sequence[Word], reads_text: bool
) -> InstructPix2PixEncoder:
    """Load VAE and text encoder in float32: what half precision loses here stays in the cache."""
    hush()
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    tokenizer = load_tokenizer(base)
    add_words(tokenizer, words)
    text_encoders = {}
    if reads_text:
        text_encoder = load_part(CLIPTextModel, base, "text_encoder", device, torch.float32)
        text_encoders["text_encoder"] = text_encoder
    return InstructPix2PixEncoder(
        vae=load_part(AutoencoderKL, base, "vae", device, torch.float32),
        text_encoders=text_encoders,
        tokenizers={"tokenizer": tokenizer},
        longest=longest_text(base, "text_encoder"),
        words=tuple(words),
    )


def open_pipeline(
    base: Base,
    device: torch.device | str,
    dtype: torch.dtype | None,
    denoiser: nn.Module | None,
) -> Any:
    """Load diffusers' pipeline without the safety checker, which most such bases lack."""
    hush()
    from diffusers import StableDiffusionInstructPix2PixPipeline

    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    kind, open_part = StableDiffusionInstructPix2PixPipeline, {"unet": denoiser} if denoiser else {}
    return load_pipeline(kind, base, device, dtype, **unused, **open_part)


def pipeline_arguments(
    pipeline: Any,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    negatives: Sequence[str] | None,
    sampling: Sampling,
) -> dict[str, Any]:
    """Ask for edits as the pipeline wants to be asked; it works at the sources' own size."""
    return edit_arguments(sources, instructions, negatives, sampling)
