"""What the editor is asked for in a step: InstructPix2Pix's loss (arXiv 2211.09800), and to tell
edits of one source apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from customize.embedded.fitting.latent_pool import Pool, weights_of
from customize.embedded.fitting.loop import autocast
from customize.families.objective import Objective

DROPOUT = 0.05
FROM_CAPTIONS = 0.1
"""The share of samples without a source, their text the target's caption: they make the denoiser
without its source channels a text-to-image model of the same world.
"""
NOISIEST = 0.5
"""The share of levels drawn from the noisiest tenth: what an edit becomes is decided there."""
LEVEL_POWER = 0.6
"""The other levels are 1000 u^0.6 for uniform u."""
PLACE_WEIGHT = 0.2
APART_WEIGHT = 3.0
"""On what sets the predictions for edits of one source apart: their text."""

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
    edit is asked for as well (binary cross-entropy). Edits of one source share level, noise and
    what is hidden: they differ in their text alone, and what sets their predictions apart is
    asked for once more.
    """
    clean_BChw, device = edits.targets_NChw, edits.targets_NChw.device
    first_B, source_B = same_sources(edits.sources_NChw)
    uniform = torch.rand(3, len(clean_BChw), generator=generator, device=device)[:, first_B]
    level_B = _levels(uniform[0], uniform[2])
    noise_BChw = torch.randn(clean_BChw.shape, generator=generator, device=device)[first_B]
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
    changed_Bhw = edits.changed_Nhw.float()
    weights_Bhw = weights_of(averaged(changed_Bhw, source_B) > 0)
    wrong_BChw = predicted_BChw - objective.target(clean_BChw, noise_BChw, level_B)
    apart_BChw = wrong_BChw - averaged(wrong_BChw, source_B)
    error_Bhw = (wrong_BChw.square() + APART_WEIGHT * apart_BChw.square()).mean(dim=1)
    missed_Bhw = F.binary_cross_entropy_with_logits(place_Bhw, changed_Bhw, reduction="none")
    told_B11 = ~(no_text_B | no_source_B)[:, None, None]
    return ((error_Bhw + PLACE_WEIGHT * told_B11 * missed_Bhw) * weights_Bhw).mean()


def same_sources(sources_BChw: Tensor) -> tuple[Tensor, Tensor]:
    """Number the sources of neighbouring edits: the row of each one's first, and its number."""
    same_B = (sources_BChw[1:] == sources_BChw[:-1]).flatten(1).all(dim=1)
    new_B = torch.cat((same_B.new_ones(1), ~same_B))
    source_B = new_B.long().cumsum(0) - 1
    return new_B.nonzero()[:, 0][source_B], source_B


def averaged(values_B: Tensor, source_B: Tensor) -> Tensor:
    """Average over the edits of each source, and give every edit its source's average."""
    sums = torch.zeros_like(values_B).index_add_(0, source_B, values_B)
    count_B = torch.bincount(source_B, minlength=len(source_B)).clamp(min=1)
    return (sums / count_B.view(-1, *[1] * (values_B.dim() - 1)))[source_B]


def _levels(first_B: Tensor, second_B: Tensor) -> Tensor:
    """Turn two uniform numbers a sample into a noise level, 0 to 999."""
    level_B = 1000 * first_B**LEVEL_POWER
    return torch.where(second_B < NOISIEST, 900 + 100 * first_B, level_B).long().clamp(max=999)
