"""The baseline of the concept table: a LoRA loop as diffusers' example scripts write it.

Both pictures and the text are encoded at every step, nothing is cached, nothing is preserved; rank
and rate are those of our own recipe, and it gets the same seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from peft import LoraConfig

from customize.embedded.fitting.autoencoder import stacked_pictures
from customize.embedded.world.edits import DrawnEdit

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def train_plain_lora(
    pipeline: Any,
    pairs: Sequence[DrawnEdit],
    seconds: float,
    *,
    rank: int = 8,
    rate: float = 1e-3,
    batch: int = 8,
) -> int:
    """Train a LoRA on `pipeline.unet` in place until the seconds are over; return the steps."""
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION))
    learning = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=rate)
    scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        chosen = [pairs[index] for index in rng.integers(len(pairs), size=batch)]
        source_BCHW, target_BCHW = stacked_pictures(chosen)
        with torch.no_grad():
            clean = vae.encode(target_BCHW).latent_dist.sample(generator)
            clean = clean * vae.config.scaling_factor
            source = vae.encode(source_BCHW).latent_dist.mode()
            text = text_encoder(_ids(pipeline.tokenizer, chosen)).last_hidden_state
        hidden = torch.rand(batch, generator=generator)
        source = source * (hidden > 0.1)[:, None, None, None]
        noise = torch.randn(clean.shape, generator=generator)
        levels = torch.randint(1000, (batch,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, levels)
        predicted = unet(torch.cat((noisy, source), dim=1), levels, text).sample
        F.mse_loss(predicted, scheduler.get_velocity(clean, noise, levels)).backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return steps


def _ids(tokenizer: Any, edits: Sequence[DrawnEdit]) -> torch.Tensor:
    encoded = tokenizer(
        [edit.instruction for edit in edits],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return encoded.input_ids
