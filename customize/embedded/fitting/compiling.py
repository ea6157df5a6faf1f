"""The editor compiled for a GPU, by another process before its turn: compiling takes a minute, in
which the autoencoder learns.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor

from customize.embedded.fitting.editor import Learners
from customize.embedded.fitting.loop import autocast
from customize.embedded.fitting.shared_state import FlatState, Worker
from customize.embedded.folder import Parts
from customize.embedded.models import LATENT_SIZE


def compile_ahead(open_parts: Callable[[], Parts], batch: int) -> BaseProcess:
    """Start a process that compiles the editor's step and leaves it in torch's cache on the disk.

    Should it fail, nothing is lost but its help.
    """
    process: Any = get_context("spawn").Process(
        target=fill_cache, args=(open_parts, batch, "cuda"), daemon=True
    )
    process.start()
    return process


def fill_cache(open_parts: Callable[[], Parts], batch: int, device: str) -> None:
    """Take one step on samples without content, laid out in memory as real ones are."""
    torch.backends.cudnn.benchmark = True  # as in the fit itself
    parts = open_parts().to(device)
    learners = Learners(parts.unet, parts.text_encoder)
    FlatState(learners, Worker(device=device))
    forward = torch.compile(learners)
    inputs_BChw = torch.zeros(batch, 8, LATENT_SIZE, LATENT_SIZE, device=device)
    length = parts.tokenizer.model_max_length
    level_B = torch.zeros(batch, dtype=torch.long, device=device)
    ids_BL = torch.zeros(batch, length, dtype=torch.long, device=device)
    with autocast(inputs_BChw.device):
        answers: tuple[Tensor, Tensor] = forward(inputs_BChw, level_B, ids_BL)
    (answers[0].square().mean() + answers[1].square().mean()).backward()
