"""Third stage: the denoiser and text encoder, as InstructPix2Pix trains (arXiv 2211.09800)."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from customize.embedded.fitting.clip import take_text_tower
from customize.embedded.fitting.latent_pool import (
    Pool,
    shuffled_rows,
    weights_of,
)
from customize.embedded.fitting.loop import Budget, autocast, fit_stage
from customize.embedded.fitting.pool_supply import PoolSupply
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.folder import Parts
from customize.embedded.models import new_scheduler
from customize.embedded.tokenizer import padded_ids
from customize.families.objective import Objective

COMPILER_SECONDS = 45.0
POOL_USES = 2
"""How often each pool of encoded edits is gone through before a new one is drawn."""
DROPOUT = 0.05
FROM_CAPTIONS = 0.1
"""The share of samples without a source, their text the target's caption: they make the denoiser
without its source channels a text-to-image model of the same world.
"""
NOISIEST = 0.25
"""The share of levels drawn from the noisiest tenth: what an edit becomes is decided there."""
LEVEL_POWER = 0.6
"""The other levels are 1000 u^0.6 for uniform u."""
PLACE_WEIGHT = 0.05


class Learners(nn.Module):
    """The two modules that learn together: denoiser and text encoder.

    While they learn, the denoiser has one output more: where the edit takes place. To tell it, it
    has to read which thing is named, at every noise level.
    """

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        """Hold both; on a CPU, where the fused kernel's bfloat16 backward takes a third of the
        step, with unfused attention.
        """
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        unet.conv_out = _resized(unet.conv_out, unet.conv_out.out_channels + 1)
        if unet.device.type == "cpu":
            unet.set_attn_processor(AttnProcessor())
            text_encoder.set_attn_implementation("eager")

    def forward(
        self, inputs_BChw: Tensor, level_B: Tensor, ids_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction (B, 4, h, w) and the logits of a change (B, h, w), in float32."""
        inputs_BChw = inputs_BChw.contiguous(memory_format=torch.channels_last)
        text_BLD = self.text_encoder(ids_BL).last_hidden_state
        output_BChw = self.unet(inputs_BChw, level_B, text_BLD).sample.float()
        return output_BChw[:, :-1], output_BChw[:, -1]

    def finish(self) -> None:
        """Take the extra output away again."""
        self.unet.conv_out = _resized(self.unet.conv_out, self.unet.conv_out.out_channels - 1)


def _resized(layer: nn.Conv2d, outputs: int) -> nn.Conv2d:
    """Keep a convolution's first outputs; new ones start at zero."""
    new = nn.Conv2d(layer.in_channels, outputs, layer.kernel_size, padding=layer.padding)  # pyright: ignore[reportArgumentType]
    kept = min(outputs, layer.out_channels)
    assert layer.bias is not None
    assert new.bias is not None
    with torch.no_grad():
        for old, fresh in ((layer.weight, new.weight), (layer.bias, new.bias)):
            fresh.zero_()
            fresh[:kept] = old[:kept]
    return new.to(layer.weight)


Forward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def editor_loss(
    forward: Forward,
    objective: Objective,
    edits: Pool,
    empty_1L: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """InstructPix2Pix's loss: text hidden where r < 2u, source where u <= r < 3u, u = 5 %.

    The last tenth is drawn from captions alone. Where text and source are there, the place of the
    edit is asked for as well (binary cross-entropy).
    """
    clean_BChw, device = edits.targets_NChw, edits.targets_NChw.device
    uniform = torch.rand(3, len(clean_BChw), generator=generator, device=device)
    level_B = _levels(uniform[0], uniform[2])
    noise_BChw = torch.randn(clean_BChw.shape, generator=generator, device=device)
    noisy_BChw = objective.corrupt(clean_BChw, noise_BChw, level_B)
    no_text_B = uniform[1] < 2 * DROPOUT
    from_caption_B = uniform[1] >= 1 - FROM_CAPTIONS
    no_source_B = (uniform[1] >= DROPOUT) & (uniform[1] < 3 * DROPOUT) | from_caption_B
    ids_BL = torch.where(from_caption_B[:, None], edits.captions_NL, edits.instructions_NL)
    ids_BL = torch.where(no_text_B[:, None], empty_1L, ids_BL)
    source_BChw = edits.sources_NChw * ~no_source_B[:, None, None, None]
    with autocast(device):
        predicted_BChw, place_Bhw = forward(
            torch.cat((noisy_BChw, source_BChw), dim=1), level_B, ids_BL
        )
    weights_Bhw = weights_of(edits.changed_Nhw)
    error_Bhw = (
        (predicted_BChw - objective.target(clean_BChw, noise_BChw, level_B)).square().mean(dim=1)
    )
    missed_Bhw = F.binary_cross_entropy_with_logits(
        place_Bhw, edits.changed_Nhw.float(), reduction="none"
    )
    told_B11 = ~(no_text_B | no_source_B)[:, None, None]
    return ((error_Bhw + PLACE_WEIGHT * told_B11 * missed_Bhw) * weights_Bhw).mean()


def _levels(first_B: Tensor, second_B: Tensor) -> Tensor:
    """Turn two uniform numbers a sample into a noise level, 0 to 999."""
    level_B = 1000 * first_B**LEVEL_POWER
    return torch.where(second_B < NOISIEST, 900 + 100 * first_B, level_B).long().clamp(max=999)


def fit_editor(
    parts: Parts,
    budget: Budget,
    pool_size: int,
    seed: int,
    folder: Path,
    worker: Worker,
    going_on: bool,
    drawers: int = 0,
    compiler: BaseProcess | None = None,
    *,
    compiled: bool,
) -> None:
    """Train the editor on pools of `pool_size` encoded edits over all workers, each used twice.

    Unless it is `going_on`, its text encoder starts as the small CLIP's text tower. A `compiler`
    that is at work is waited for a while, once there is something to compute. `compiled` compiles
    the step.
    """
    if not going_on:
        take_text_tower(parts.text_encoder, parts.clip)
    learners = Learners(parts.unet, parts.text_encoder)
    objective = Objective.from_config(new_scheduler().config)
    empty_1L = torch.from_numpy(padded_ids(parts.tokenizer, [""])).to(worker.device)
    forward: Forward = torch.compile(learners) if compiled else learners
    size, count = pool_size // worker.count, budget.batch // worker.count
    batches = len(shuffled_rows(size, count, np.random.default_rng()))
    supply = PoolSupply(parts, size, (seed, 4), folder, worker, drawers)

    def loss_of(step: int, _: int) -> Tensor:
        nonlocal compiler
        use, batch = divmod(step, batches)
        order = np.random.default_rng((seed, 5, use, worker.rank))
        rows = torch.from_numpy(shuffled_rows(size, count, order)[batch])
        draw = np.random.default_rng((seed, 6, step, worker.rank))
        generator = torch.Generator(worker.device).manual_seed(int(draw.integers(2**62)))
        edits = supply.pool(use // POOL_USES).rows(rows, worker.device)
        if compiler is not None:
            compiler.join(COMPILER_SECONDS)
            compiler = None
        return editor_loss(forward, objective, edits, empty_1L, generator)

    with supply:
        fit_stage("editor", learners, loss_of, budget, folder, worker)
    learners.finish()
    learners.eval().requires_grad_(False)
