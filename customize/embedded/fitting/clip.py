"""Second stage: the small CLIP, and with its text tower the denoiser's first knowledge of words."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from customize.embedded.fitting.autoencoder import stacked_pictures
from customize.embedded.fitting.loop import Budget, autocast, fit_stage
from customize.embedded.fitting.shared_state import Worker
from customize.embedded.models import image_features, text_features
from customize.embedded.tokenizer import padded_ids
from customize.embedded.world.edits import DrawnEdit, random_edit

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def to_clip(unit_BCHW: Tensor) -> Tensor:
    """Turn pictures in -1..1 into CLIP's normalized pixels."""
    mean, std = (
        torch.tensor(v, device=unit_BCHW.device).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD)
    )
    return ((unit_BCHW + 1) / 2 - mean) / std


def contrast(images_BD: Tensor, texts_BD: Tensor, texts: list[str], scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3); rows with equal texts count as equally
    right.
    """
    logits = scale * F.normalize(images_BD, dim=-1) @ F.normalize(texts_BD, dim=-1).T
    same = torch.tensor([[float(a == b) for b in texts] for a in texts], device=logits.device)
    right = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def clip_loss(clip: CLIPModel, tokenizer: CLIPTokenizer, edits: list[DrawnEdit]) -> Tensor:
    """Pictures with captions, changes of pictures with changes of captions, and with instructions.

    The second term is directional similarity (Gal et al. 2022, equation 2) made contrastive; the
    third teaches the text tower what instructions do.
    """
    device = clip.device
    columns = [
        [edit.source_caption for edit in edits],
        [edit.target_caption for edit in edits],
        [edit.instruction for edit in edits],
    ]
    ids = torch.from_numpy(
        padded_ids(tokenizer, [text for column in columns for text in column])
    ).to(device)
    pixels = torch.cat(stacked_pictures(edits)).to(device)
    with autocast(device):
        images = image_features(clip, to_clip(pixels)).float()
        texts = text_features(clip, ids).float()
    source, target = F.normalize(images, dim=-1).chunk(2)
    before, after, told = F.normalize(texts, dim=-1).chunk(3)
    scale = clip.logit_scale.exp().clamp(max=100)
    captions = contrast(
        torch.cat((source, target)), torch.cat((before, after)), columns[0] + columns[1], scale
    )
    changes = [f"{a} -> {b}" for a, b in zip(columns[0], columns[1], strict=True)]
    moved = [index for index, edit in enumerate(edits) if edit.kind != "keep"]
    direction = (target - source)[moved]
    return captions + 0.5 * (
        contrast(direction, (after - before)[moved], [changes[i] for i in moved], scale)
        + contrast(direction, told[moved], [columns[2][i] for i in moved], scale)
    )


def fit_clip(
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    budget: Budget,
    seed: int,
    folder: Path,
    worker: Worker,
) -> None:
    """Train the small CLIP."""
    clip.set_attn_implementation("eager")  # the fused kernel's bfloat16 backward is slow on CPUs

    def loss_of(step: int, count: int) -> Tensor:
        edits = [random_edit((seed, 3, step, worker.rank, index)) for index in range(count)]
        return clip_loss(clip, tokenizer, edits)

    fit_stage("clip", clip, loss_of, budget, folder, worker)
    clip.eval().requires_grad_(False)


def take_text_tower(text_encoder: nn.Module, clip: CLIPModel) -> None:
    """Start the denoiser's text encoder from the small CLIP's."""
    tower = {
        name.removeprefix("text_model."): w for name, w in clip.text_model.state_dict().items()
    }
    text_encoder.load_state_dict(tower)
