"""SDXL's two text encoders: opened, read side by side, and what of them can learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from customize.families.base import Base
from customize.families.loading.parts import load_part, load_tokenizer
from customize.families.stable_diffusion.profiles import SDXL

HIDDEN = -1
"""The id that stands, all along, for no instruction."""


def encode_text(encoders: Sequence[Any], ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return both encoders' states before their last layer, side by side (B, L, D1 + D2), and the
    second's pooled text (B, P); zeros for samples whose ids (B, L) are `HIDDEN`.
    """
    read = [
        encoder(ids_BL.clamp(min=0), output_hidden_states=True)
        for encoder, ids_BL in zip(encoders, ids, strict=True)
    ]
    text_BLD = torch.cat([output.hidden_states[-2] for output in read], dim=-1)
    shown_B = ids[0][:, 0] != HIDDEN
    return text_BLD * shown_B[:, None, None], read[1][0] * shown_B[:, None]


def open_tokenizers(base: Base) -> dict[str, Any]:
    """Load both tokenizers, by their names in a pipeline."""
    return {part: load_tokenizer(base, part) for part in SDXL.tokenizers}


def open_encoders(
    base: Base, tokenizers: Mapping[str, Any], device: torch.device | str, dtype: torch.dtype
) -> dict[str, Any]:
    """Load both encoders, frozen, by their names in a pipeline."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    encoders = {
        part: load_part(kind, base, part, device, dtype)
        for kind, part in zip(kinds, SDXL.text_encoders, strict=True)
    }
    for encoder, tokenizer in zip(encoders.values(), tokenizers.values(), strict=True):
        pool_at_the_end(encoder, tokenizer)
    return encoders


def pool_at_the_end(encoder: nn.Module, tokenizer: Any) -> None:
    """Have pooled text taken at the end of the text, not at a taught word.

    Published configs say `eos_token_id: 2`, which transformers takes as "at the highest id": the
    end of plain text, but a new word's ids are higher still.
    """
    for module in encoder.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = tokenizer.eos_token_id


def text_pattern(last: int) -> str:
    """Match both encoders' attention, but for the first's `last` layer, which nobody reads."""
    first, second = rf"text_encoder\.(?!.*layers\.{last}\.).*", r"text_encoder_2\..*"
    return rf"({first}|{second})\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"
