"""What Stable Diffusion's families share: a pair's latents, CLIP's token ids, hidden conditions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from customize.errors import BaseModelError
from customize.families import Dropout
from customize.families.words import Word, expand_words
from customize.shapes import Conditions, Encoded, Example


@torch.no_grad()
def encode_pair(vae: Any, example: Example, *, source_scale: float = 1.0) -> Encoded:
    """Encode as InstructPix2Pix was trained: the target scaled, the source's mode unscaled.

    Returns float32 on the CPU, with `source` as the only condition; its mode is multiplied by
    `source_scale`. Raises BaseModelError when the VAE answers with what is no number.
    """
    source, target = (_latents(vae, pixels) for pixels in (example.source_HWC, example.target_HWC))
    scale = vae.config.scaling_factor
    mode_Chw, mean_Chw, std_Chw = (
        source.mode()[0].float().mul(source_scale).cpu().clone(),
        target.mean[0].float().mul(scale).cpu(),
        target.std[0].float().mul(scale).cpu(),
    )
    if not all(x.isfinite().all() for x in (mode_Chw, mean_Chw, std_Chw)):
        raise BaseModelError(
            f"the base's VAE turns the pair of {example.instruction!r} into latents that are no "
            f"numbers, computing in {vae.dtype}; expected finite ones",
            "its weights are damaged or overflowed when they were saved in half precision: take "
            "the base's float32 version",
        )
    return Encoded(mean_Chw, std_Chw, conditions={"source": mode_Chw})


def _latents(vae: Any, pixels_HWC: np.ndarray) -> Any:
    """Encode one picture to its distribution: two at once would take twice the memory."""
    pixels_BHWC = torch.from_numpy(pixels_HWC)[None]
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
    return vae.encode(pixels_BCHW.to(vae.device, vae.dtype)).latent_dist


def token_ids(
    tokenizer: Any, instruction: str, words: Sequence[Word] = (), *, longest: int
) -> Tensor:
    """Turn an instruction into padded ids (L,), L the tokenizer's own length and at most `longest`.

    Warns when the instruction is longer than that.
    """
    length = min(tokenizer.model_max_length, longest)
    expanded = expand_words(instruction, words)
    count = len(tokenizer(expanded).input_ids)
    if count > length:
        warnings.warn(
            f"instruction {instruction!r} is {count} tokens long and this base reads {length}: "
            "its end is cut off; shorten it",
            stacklevel=3,
        )
    ids_BL = tokenizer(
        [expanded], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids_BL[0]


def hide_conditions(
    conditions: Conditions, empty_text: Mapping[str, Tensor], uniform_B: Tensor, dropout: Dropout
) -> Conditions:
    """Hide conditions by one uniform number a sample, as InstructPix2Pix's code does (5 % each).

    In order of the number: text hidden (`empty_text`), both hidden, `source` hidden (zeros),
    nothing hidden. Other conditions stay.
    """
    text_ends = dropout.text + dropout.both
    no_text_B = uniform_B < text_ends
    no_source_B = (uniform_B >= dropout.text) & (uniform_B < text_ends + dropout.image)
    hidden = {"source": (no_source_B, torch.zeros_like(conditions["source"][0]))}
    hidden |= {key: (no_text_B, empty) for key, empty in empty_text.items()}
    assert hidden.keys() <= conditions.keys(), (hidden.keys(), conditions.keys())
    return {
        **conditions,
        **{
            key: torch.where(mask_B.view(-1, *[1] * empty.ndim), empty, conditions[key])
            for key, (mask_B, empty) in hidden.items()
        },
    }
