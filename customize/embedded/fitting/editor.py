"""Third stage: the denoiser and text encoder, as InstructPix2Pix trains (arXiv 2211.09800)."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from customize.embedded.fitting.clip import take_text_tower
from customize.embedded.fitting.editor_loss import Forward, editor_loss
from customize.embedded.fitting.latent_pool import shuffled_rows
from customize.embedded.fitting.loop import Budget, fit_stage
from customize.embedded.fitting.pool_supply import PoolSupply
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.folder import Parts
from customize.embedded.models import new_scheduler
from customize.embedded.tokenizer import padded_ids
from customize.families.objective import Objective

COMPILER_SECONDS = 45.0
POOL_USES = 2
"""How often each pool of encoded edits is gone through before a new one is drawn."""
TEXT_RATE = 0.2
"""The text encoder's share of the learning rate. At the full rate its first layer ran away to
activations of several hundred, which told "remove the dog" and "remove the car" no more apart.
"""


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
        rates = {"text_encoder.": TEXT_RATE}
        fit_stage("editor", learners, loss_of, budget, folder, worker, rates)
    learners.finish()
    learners.eval().requires_grad_(False)
