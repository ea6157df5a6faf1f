"""InstructPix2Pix on Stable Diffusion 1 (arXiv 2211.09800): an 8-channel UNet that reads CLIP text.

Conditions: `source` (4, h, w), the source picture's latent, and either `text` (L, D) or `token_ids`
(L,).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from customize.errors import BaseModelError
from customize.families import Dropout
from customize.families.bases import Base
from customize.families.quiet import hush, quiet_loading
from customize.families.words import Word, add_words, expand_words
from customize.objective import Objective
from customize.shapes import Conditions, Encoded, Example


@dataclass(frozen=True)
class InstructPix2Pix:
    """The denoiser and what training knows of it; `dtype` is its weights', wrapped or not."""

    denoiser: nn.Module
    objective: Objective
    dtype: torch.dtype
    text_encoder: nn.Module | None = None
    tokenizer: Any | None = None
    kv_pattern: str = r".*\.attn2\.to_[kv]"

    def predict(self, noisy_BChw: Tensor, level_B: Tensor, conditions: Conditions) -> Tensor:
        """Stack the source's latent under the noisy one and read the text; (B, 4, h, w) float32."""
        if "text" in conditions:
            text_BLD = conditions["text"]
        else:
            assert self.text_encoder is not None, "token ids need the family's text encoder"
            text_BLD = self.text_encoder(conditions["token_ids"])[0]
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
        """Hide conditions by one uniform number a sample, as the paper's code does (5 % each).

        In order of the number: text hidden, both hidden, source hidden (zeros), nothing hidden.
        """
        text_ends = dropout.text + dropout.both
        no_text_B = uniform_B < text_ends
        no_source_B = (uniform_B >= dropout.text) & (uniform_B < text_ends + dropout.image)
        hidden = {"source": (no_source_B, torch.zeros_like(conditions["source"][0]))}
        hidden |= {key: (no_text_B, empty) for key, empty in empty_text.items()}
        assert hidden.keys() == conditions.keys(), (hidden.keys(), conditions.keys())
        return {
            key: torch.where(mask_B.view(-1, *[1] * empty.ndim), empty, conditions[key])
            for key, (mask_B, empty) in hidden.items()
        }


@dataclass(frozen=True)
class InstructPix2PixEncoder:
    """The base's VAE and text encoder in float32, and its tokenizer, which knows `words`."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    words: tuple[Word, ...]

    @torch.no_grad()
    def encode(self, example: Example, *, as_tokens: bool) -> Encoded:
        """Encode as the base was trained: the target scaled, the source's mode unscaled."""
        pixels_BHWC = np.stack([example.source_HWC, example.target_HWC])
        pixels_BCHW = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = self.vae.encode(pixels_BCHW.to(self.vae.device)).latent_dist
        scale = self.vae.config.scaling_factor
        source_Chw = latents.mode()[0].cpu().clone()
        return Encoded(
            target_mean_Chw=latents.mean[1].mul(scale).cpu(),
            target_std_Chw=latents.std[1].mul(scale).cpu(),
            conditions={
                "source": source_Chw,
                **self.text(example.instruction, as_tokens=as_tokens),
            },
        )

    @torch.no_grad()
    def text(self, instruction: str, *, as_tokens: bool) -> Mapping[str, Tensor]:
        """Encode to `token_ids` (L,) or `text` (L, D); warns when the instruction is longer."""
        assert as_tokens or not self.words, (
            "the text encoder does not know the words: encode as tokens"
        )
        length = min(
            self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings
        )
        expanded = expand_words(instruction, self.words)
        count = len(self.tokenizer(expanded).input_ids)
        if count > length:
            warnings.warn(
                f"instruction {instruction!r} is {count} tokens long and this base reads {length}: "
                "its end is cut off; "
                "shorten it",
                stacklevel=2,
            )
        ids_BL = self.tokenizer(
            [expanded],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        if as_tokens:
            return {"token_ids": ids_BL[0]}
        return {"text": self.text_encoder(ids_BL.to(self.text_encoder.device))[0][0].cpu()}


def open_family(
    base: Base, device: torch.device | str, dtype: torch.dtype | None, learns_text: bool
) -> InstructPix2Pix:
    """Load the frozen UNet, with the frozen text encoder and tokenizer when text is learned."""
    hush()
    from diffusers import UNet2DConditionModel

    dtype = dtype or base.dtype(device)
    text_encoder = tokenizer = None
    if learns_text:
        text_encoder, tokenizer = _open_text(base, device, dtype)
    return InstructPix2Pix(
        denoiser=_frozen(_load(UNet2DConditionModel, base, "unet", dtype=dtype), device),
        objective=_objective(base).to(device),
        dtype=dtype,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )


def open_encoder(
    base: Base, device: torch.device | str, words: Sequence[Word]
) -> InstructPix2PixEncoder:
    """Load VAE and text encoder in float32: what half precision loses here stays in the cache."""
    hush()
    from diffusers import AutoencoderKL

    text_encoder, tokenizer = _open_text(base, device, torch.float32)
    add_words(tokenizer, words)
    vae = _frozen(_load(AutoencoderKL, base, "vae", dtype=torch.float32), device)
    return InstructPix2PixEncoder(vae, text_encoder, tokenizer, tuple(words))


def open_pipeline(base: Base, device: torch.device | str, dtype: torch.dtype | None) -> Any:
    """Load diffusers' pipeline without the safety checker, which most such bases lack."""
    hush()
    from diffusers import StableDiffusionInstructPix2PixPipeline

    options = {
        "dtype": dtype or base.dtype(device),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    pipeline = _load(StableDiffusionInstructPix2PixPipeline, base, None, **options)
    return pipeline.to(device)


def _open_text(base: Base, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import CLIPTextModel, CLIPTokenizer

    text_encoder = _load(CLIPTextModel, base, "text_encoder", dtype=dtype)
    tokenizer = _from(base, "tokenizer", CLIPTokenizer.from_pretrained, subfolder="tokenizer")
    return _frozen(text_encoder, device), tokenizer


def _objective(base: Base) -> Objective:
    path = base.folder / "scheduler" / "scheduler_config.json"
    return Objective.from_config(
        _from(base, "scheduler", lambda _: json.loads(path.read_text(encoding="utf-8")))
    )


def _frozen(module: Any, device: torch.device | str) -> Any:
    return module.to(device).requires_grad_(False).eval()


def _load(kind: Any, base: Base, subfolder: str | None, **options: Any) -> Any:
    place = {} if subfolder is None else {"subfolder": subfolder}
    options = {**place, **options, "use_safetensors": True, "variant": base.variant}
    with quiet_loading():
        return _from(base, subfolder or "pipeline", kind.from_pretrained, **options)


def _from(base: Base, part: str, load: Callable[..., Any], **options: Any) -> Any:
    """Call one of the libraries' loaders; what it raises becomes one clear message."""
    try:
        return load(str(base.folder), **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise BaseModelError(
            f"base {base.name!r}: its {part} cannot be loaded from {base.folder} "
            f"({type(error).__name__}: {first}); "
            "expected a complete diffusers folder; save or download the model again"
        ) from error
