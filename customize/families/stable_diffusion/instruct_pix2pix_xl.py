"""InstructPix2Pix on SDXL (arXiv 2307.01952): an 8-channel UNet that reads two CLIP encoders.

Conditions: `source` (4, h, w), the source picture's latent; `time_ids` (6,), its size, crop and
target size in pixels; and either `text` (L, D) with `pooled` (P,), or `token_ids` and `token_ids_2`
(L,), where ids of `HIDDEN` stand for no instruction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from customize.families import Dropout
from customize.families.base import Base
from customize.families.loading.parts import load_objective, load_part, load_pipeline, longest_text
from customize.families.loading.quiet import hush
from customize.families.objective import Objective
from customize.families.profile import Profile
from customize.families.sampling_defaults import Sampling
from customize.families.stable_diffusion.conditions import encode_pair, hide_conditions, token_ids
from customize.families.stable_diffusion.profiles import SDXL
from customize.families.stable_diffusion.two_text_encoders import (
    HIDDEN,
    encode_text,
    open_encoders,
    open_tokenizers,
    pool_at_the_end,
    text_pattern,
)
from customize.families.stable_diffusion.unet_bases import edit_arguments
from customize.families.words import Word, add_words
from customize.shapes import Conditions, Encoded, Example


@dataclass(frozen=True)
class InstructPix2PixXL:
    """The denoiser and what training knows of it; `dtype` is its weights', wrapped or not."""

    denoiser: nn.Module
    objective: Objective
    dtype: torch.dtype
    text_encoders: Mapping[str, nn.Module] = field(default_factory=dict)
    tokenizers: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile = SDXL
    text_pattern: str = ""

    def predict(self, noisy_BChw: Tensor, level_B: Tensor, conditions: Conditions) -> Tensor:
        """Stack the source's latent under the noisy one and read text, pooled text and sizes.

        Returns (B, 4, h, w) float32.
        """
        if "text" in conditions:
            text_BLD, pooled_BP = conditions["text"], conditions["pooled"]
        else:
            ids = [conditions["token_ids"], conditions["token_ids_2"]]
            text_BLD, pooled_BP = encode_text(list(self.text_encoders.values()), ids)
        stacked_BChw = torch.cat([noisy_BChw, conditions["source"]], dim=1)
        return self.denoiser(
            stacked_BChw.to(self.dtype),
            level_B,
            encoder_hidden_states=text_BLD.to(self.dtype),
            added_cond_kwargs={
                "text_embeds": pooled_BP.to(self.dtype),
                "time_ids": conditions["time_ids"],
            },
            return_dict=False,
        )[0].float()

    def drop(
        self,
        conditions: Conditions,
        empty_text: Mapping[str, Tensor],
        uniform_B: Tensor,
        dropout: Dropout,
    ) -> Conditions:
        """Hide text (pooled text too), source or both; sizes are always told."""
        return hide_conditions(conditions, empty_text, uniform_B, dropout)


@dataclass(frozen=True)
class InstructPix2PixXLEncoder:
    """The base's VAE and text encoders in float32, and its tokenizers, which know `words`.

    The VAE computes in float32 because its activations overflow float16. `longest` is how many
    tokens both text encoders read, which are left out where every text is encoded as tokens.
    `source_scale` multiplies the source's latent; `zero_text` says that no instruction is zeros,
    not the encoded "".
    """

    vae: Any
    text_encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    words: tuple[Word, ...]
    longest: int
    source_scale: float = 1.0
    zero_text: bool = True

    def encode(self, example: Example, *, as_tokens: bool) -> Encoded:
        """Encode as diffusers' pipeline does, which tells the denoiser the picture's own size."""
        pictures = encode_pair(self.vae, example, source_scale=self.source_scale)
        height, width = example.source_HWC.shape[:2]
        sizes = {"time_ids": torch.tensor([height, width, 0, 0, height, width]).float()}
        text = self.text(example.instruction, as_tokens=as_tokens)
        return replace(pictures, conditions={**pictures.conditions, **sizes, **text})

    @torch.no_grad()
    def text(self, instruction: str, *, as_tokens: bool) -> Mapping[str, Tensor]:
        """Encode to `token_ids` and `token_ids_2` (L,), or to `text` (L, D) and `pooled` (P,).

        Warns when the instruction is longer than the base reads.
        """
        ids = [
            token_ids(tokenizer, instruction, self.words, longest=self.longest)
            for tokenizer in self.tokenizers.values()
        ]
        if not instruction and self.zero_text:
            ids = [torch.full_like(ids_L, HIDDEN) for ids_L in ids]
        if as_tokens:
            return {"token_ids": ids[0], "token_ids_2": ids[1]}
        assert not self.words, "the encoders do not know the words: encode as tokens"
        assert self.text_encoders, "opened without text encoders: encode as tokens"
        encoders = list(self.text_encoders.values())
        text_BLD, pooled_BP = encode_text(encoders, [x[None].to(encoders[0].device) for x in ids])
        return {"text": text_BLD[0].cpu(), "pooled": pooled_BP[0].cpu()}


def open_family(
    base: Base, device: torch.device | str, dtype: torch.dtype | None, learns_text: bool
) -> InstructPix2PixXL:
    """Load the frozen UNet, with both frozen text encoders and tokenizers when text is learned."""
    hush()
    from diffusers import UNet2DConditionModel

    dtype = dtype or base.dtype(device)
    family = InstructPix2PixXL(
        denoiser=load_part(UNet2DConditionModel, base, "unet", device, dtype),
        objective=load_objective(base).to(device),
        dtype=dtype,
    )
    if not learns_text:
        return family
    tokenizers = open_tokenizers(base)
    encoders = open_encoders(base, tokenizers, device, dtype)
    return replace(
        family,
        text_encoders=encoders,
        tokenizers=tokenizers,
        text_pattern=text_pattern(encoders["text_encoder"].config.num_hidden_layers - 1),
    )


def open_encoder(
    base: Base, device: torch.device | str, words: Sequence[Word], reads_text: bool
) -> InstructPix2PixXLEncoder:
    """Load VAE and text encoders in float32: what half precision loses here stays in the cache."""
    hush()
    from diffusers import AutoencoderKL

    tokenizers = open_tokenizers(base)
    encoders = open_encoders(base, tokenizers, device, torch.float32) if reads_text else {}
    for tokenizer in tokenizers.values():
        add_words(tokenizer, words)
    vae = load_part(AutoencoderKL, base, "vae", device, torch.float32)
    index = json.loads((base.folder / "model_index.json").read_text("utf-8"))
    return InstructPix2PixXLEncoder(
        vae=vae,
        text_encoders=encoders,
        tokenizers=tokenizers,
        words=tuple(words),
        longest=min(longest_text(base, part) for part in SDXL.text_encoders),
        # As diffusers' pipeline reads its own index: CosXL scales the source, others do not.
        source_scale=vae.config.scaling_factor if index.get("is_cosxl_edit") else 1.0,
        zero_text=bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def open_pipeline(
    base: Base,
    device: torch.device | str,
    dtype: torch.dtype | None,
    denoiser: nn.Module | None,
) -> Any:
    """Load diffusers' pipeline, without the watermark it would add where a package is there.

    It runs a VAE whose config says `force_upcast` in float32 by itself.
    """
    hush()
    from diffusers import StableDiffusionXLInstructPix2PixPipeline

    kind = StableDiffusionXLInstructPix2PixPipeline
    open_part = {"unet": denoiser} if denoiser else {}
    pipeline = load_pipeline(kind, base, device, dtype, add_watermarker=False, **open_part)
    for encoder, tokenizer in zip(SDXL.text_encoders, SDXL.tokenizers, strict=True):
        pool_at_the_end(getattr(pipeline, encoder), getattr(pipeline, tokenizer))
    return pipeline


def pipeline_arguments(
    pipeline: Any,
    sources: Sequence[Image.Image],
    instructions: Sequence[str],
    negatives: Sequence[str] | None,
    sampling: Sampling,
) -> dict[str, Any]:
    """Ask for edits as the pipeline wants to be asked; told no size, it makes pictures square."""
    width, height = sources[0].size
    asked = edit_arguments(sources, instructions, negatives, sampling)
    return asked | {"width": width, "height": height}
