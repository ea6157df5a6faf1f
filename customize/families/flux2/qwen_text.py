"""Instructions as FLUX.2 klein reads them: three hidden layers of Qwen3, side by side."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

LENGTH = 512
"""Tokens of every text, as diffusers' pipeline pads and cuts it."""


def read_layers(text_encoder: Any) -> tuple[int, ...]:
    """Return which hidden layers are read: those at a quarter, a half and three quarters.

    9, 18 and 27 of the 36 that the published models have.
    """
    depth = text_encoder.config.num_hidden_layers
    return depth // 4, depth // 2, depth * 3 // 4


def told(tokenizer: Any, instruction: str) -> dict[str, Tensor]:
    """Turn an instruction into ids and mask, (1, L), as a question put to Qwen3.

    Warns when it is longer than that: its end is cut off.
    """
    message = [{"role": "user", "content": instruction}]
    text = tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    if (count := len(tokenizer(text).input_ids)) > LENGTH:
        warnings.warn(
            f"instruction {instruction!r} is {count} tokens long and this base reads {LENGTH}: "
            "its end is cut off; shorten it",
            stacklevel=3,
        )
    return dict(
        tokenizer(
            text, return_tensors="pt", padding="max_length", truncation=True, max_length=LENGTH
        )
    )


@torch.no_grad()
def encode_text(text_encoder: Any, tokenizer: Any, instruction: str) -> Tensor:
    """Encode an instruction: (L, D) on the CPU, in the text encoder's own precision.

    The words' logits are not computed: they would take more memory than all the rest.
    """
    inputs = told(tokenizer, instruction)
    hidden = text_encoder.model(
        input_ids=inputs["input_ids"].to(text_encoder.device),
        attention_mask=inputs["attention_mask"].to(text_encoder.device),
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    return torch.cat([hidden[layer][0] for layer in read_layers(text_encoder)], dim=-1).cpu()
