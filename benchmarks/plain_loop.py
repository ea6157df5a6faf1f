"""The baseline of the speed benchmark: training as diffusers' InstructPix2Pix LoRA script does it.

Both pictures and the text (and the text of no instruction) are encoded at every step, everything
runs eagerly with the libraries' defaults, and nothing is preserved. Facts from
examples/research_projects/instructpix2pix_lora/train_instruct_pix2pix_lora.py; the code is ours.
With mixed precision the frozen weights are cast, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from customize.shapes import Pair

TARGETS = {
    "low_rank": ["to_q", "to_k", "to_v", "to_out.0"],
    "cross_attention_kv": ["attn2.to_k", "attn2.to_v"],
}
HIDDEN = 0.05
"""The share of samples without text, without both and without the source, each."""


def plain_steps(
    pipeline: Any,
    pairs: list[Pair],
    method: str,
    *,
    rank: int,
    batch: int,
    side: int,
    precision: str,
) -> Iterator[float]:
    """Train `pipeline.unet` in place without end; yield each step's loss.

    `low_rank` learns LoRA factors, `cross_attention_kv` the text-reading keys' and values' weights
    themselves, as diffusers' Custom Diffusion script does.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from diffusers import DDPMScheduler

    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(mixed_precision=precision)
    device, kind = accelerator.device, torch.float32 if precision == "no" else torch.bfloat16
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False).to(device, dtype=kind)
    _make_learn(unet, method, rank)
    learning = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=1e-2)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    scheduler: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    random, generator = np.random.default_rng(0), torch.Generator(device).manual_seed(0)
    unet.train()
    while True:
        chosen = [pairs[index] for index in random.integers(len(pairs), size=batch)]
        edited = _pixels([pair.target for pair in chosen], side).to(device, kind)
        original = _pixels([pair.source for pair in chosen], side).to(device, kind)
        with torch.no_grad():  # the script leaves it out here; nothing learns in this part
            clean = vae.encode(edited).latent_dist.sample() * vae.config.scaling_factor
            text = text_encoder(_ids(pipeline, [pair.instruction for pair in chosen], device))[0]
            source = vae.encode(original).latent_dist.mode()
            empty = text_encoder(_ids(pipeline, [""], device))[0]
        noise = torch.randn_like(clean)
        levels = torch.randint(0, len(scheduler.alphas_cumprod), (batch,), device=device)
        hidden = torch.rand(batch, device=device, generator=generator)
        text = torch.where((hidden < 2 * HIDDEN)[:, None, None], empty, text)
        shown = ~((hidden >= HIDDEN) & (hidden < 3 * HIDDEN))
        source = source * shown[:, None, None, None].to(source.dtype)
        noisy = torch.cat([scheduler.add_noise(clean, noise, levels), source], dim=1)
        epsilon = scheduler.config.prediction_type == "epsilon"
        target = noise if epsilon else scheduler.get_velocity(clean, noise, levels)
        predicted = unet(noisy, levels, text, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), target.float())
        gathered: Any = accelerator.gather(loss.repeat(batch))
        figure = gathered.mean().item()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield figure


def _make_learn(unet: Any, method: str, rank: int) -> None:
    if method == "low_rank":
        from peft import LoraConfig

        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS[method]))
    else:
        for name, module in unet.named_modules():
            if name.endswith(tuple(TARGETS[method])):
                module.requires_grad_(True).float()


def _pixels(paths: list[Path], side: int) -> Tensor:
    """Decode and scale pictures to (B, 3, side, side) in -1..1, anew at every step."""
    pictures = [Image.open(path).convert("RGB").resize((side, side)) for path in paths]
    pixels_BHWC = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def _ids(pipeline: Any, texts: list[str], device: torch.device) -> Tensor:
    encoded = pipeline.tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=pipeline.text_encoder.config.max_position_embeddings,
        return_tensors="pt",
    )
    return encoded.input_ids.to(device)
