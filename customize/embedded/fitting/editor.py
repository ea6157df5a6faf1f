"""Third stage: the denoiser and text encoder, as InstructPix2Pix trains (arXiv 2211.09800)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from customize.embedded.fitting.clip import take_text_tower
from customize.embedded.fitting.latent_pool import Pool, fill_pool, kept_pool
from customize.embedded.fitting.loop import Budget, fit_stage
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.folder import Parts
from customize.embedded.models import new_scheduler
from customize.embedded.tokenizer import token_ids
from customize.families.objective import Objective

POOL_USES = 8
"""How often each pool of encoded edits is gone through before a new one is drawn."""
DROPOUT = 0.05
LEVEL_POWER = 0.6
"""Levels are 1000 u^0.6 for uniform u: what an edit becomes is decided at high noise."""


class Editor(nn.Module):
    """The two modules that learn together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        """Hold both."""
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


def prefer_plain_attention(editor: Editor) -> None:
    """Use unfused attention: on CPUs the fused kernel's bfloat16 backward takes a third of the
    step.
    """
    editor.unet.set_attn_processor(AttnProcessor())
    editor.text_encoder.set_attn_implementation("eager")


def editor_loss(
    editor: Editor, objective: Objective, edits: Pool, empty_1L: Tensor, generator: torch.Generator
) -> Tensor:
    """InstructPix2Pix's loss: text hidden where r < 2u, source where u <= r < 3u, u = 5 %."""
    clean_BChw, device = edits.targets_NChw, edits.targets_NChw.device
    count = len(clean_BChw)
    uniform = torch.rand(2, count, generator=generator).to(device)
    level_B = (1000 * uniform[0] ** LEVEL_POWER).long().clamp(max=999)
    noise_BChw = torch.randn(clean_BChw.shape, generator=generator).to(device)
    noisy_BChw = objective.corrupt(clean_BChw, noise_BChw, level_B)
    no_text_B = uniform[1] < 2 * DROPOUT
    no_source_B = (uniform[1] >= DROPOUT) & (uniform[1] < 3 * DROPOUT)
    ids_BL = torch.where(no_text_B[:, None], empty_1L, edits.ids_NL)
    source_BChw = edits.sources_NChw * ~no_source_B[:, None, None, None]
    with torch.autocast(device.type, torch.bfloat16):
        text_BLD = editor.text_encoder(ids_BL).last_hidden_state
        inputs = torch.cat((noisy_BChw, source_BChw), dim=1)
        predicted_BChw = editor.unet(inputs, level_B, text_BLD).sample
    error = predicted_BChw.float() - objective.target(clean_BChw, noise_BChw, level_B)
    return (error.square().mean(dim=1) * edits.weights_Nhw).mean()


def fit_editor(
    parts: Parts,
    budget: Budget,
    pool_size: int,
    seed: int,
    folder: Path,
    worker: Worker,
    going_on: bool,
) -> None:
    """Train the editor on pools of `pool_size` encoded edits over all workers, each used eight
    times.

    Unless it is `going_on`, its text encoder starts as the small CLIP's text tower.
    """
    if not going_on:
        take_text_tower(parts.text_encoder, parts.clip)
    editor = Editor(parts.unet, parts.text_encoder)
    prefer_plain_attention(editor)
    objective = Objective.from_config(new_scheduler().config)
    empty_1L = torch.from_numpy(token_ids(parts.tokenizer, [""])).to(worker.device)
    pools: dict[int, Pool] = {}

    def pool_of(number: int) -> Pool:
        place = (seed, 4, number, worker.rank)
        share, quiet = pool_size // worker.count, worker.rank > 0
        path = folder / f"pool-{number}-{share}-{worker.rank}.safetensors"
        for old in folder.glob(f"pool-*-{worker.rank}.safetensors"):
            if old != path:
                old.unlink()
        return kept_pool(
            path,
            lambda: fill_pool(share, place, parts.vae, parts.tokenizer, worker.device, quiet),
        )

    def loss_of(step: int, count: int) -> Tensor:
        number = step * budget.batch // (pool_size * POOL_USES)
        if number not in pools:
            pools.clear()
            pools[number] = pool_of(number)
        draw = np.random.default_rng((seed, 5, step, worker.rank))
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        edits = pools[number].batch(draw, count, worker.device)
        return editor_loss(editor, objective, edits, empty_1L, generator)

    fit_stage("editor", editor, loss_of, budget, folder, worker)
    editor.eval().requires_grad_(False)
