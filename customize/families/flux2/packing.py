"""Pictures as tokens: 2 x 2 patches of latents, normalized, with their places in the sequence.

A token's place is (T, H, W, L): T is 0 for the picture that is made and 10, 20, ... for its
sources; H and W count patches; L counts the words of a text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

LARGEST = 1024 * 1024
"""Pixels of a source; larger ones are shrunk to it."""
SOURCE_STEP = 10


def patched(latents_BChw: Tensor) -> Tensor:
    """Put each 2 x 2 patch into channels: (B, C, h, w) to (B, 4 C, h / 2, w / 2)."""
    return torch.nn.functional.pixel_unshuffle(latents_BChw, 2)


def normalized(vae: Any, patched_BChw: Tensor) -> Tensor:
    """Bring patched latents to mean 0 and deviation 1 by the autoencoder's own statistics."""
    mean_C, variance_C = vae.bn.running_mean, vae.bn.running_var
    deviation_C = (variance_C + vae.config.batch_norm_eps).sqrt()
    mean_1C11, deviation_1C11 = (
        x_C.view(1, -1, 1, 1).to(patched_BChw) for x_C in (mean_C, deviation_C)
    )
    return (patched_BChw - mean_1C11) / deviation_1C11


def tokens(pictures_BChw: Sequence[Tensor]) -> Tensor:
    """Put pictures' tokens after one another, row by row: (B, L, C)."""
    return torch.cat([each.flatten(2).transpose(1, 2) for each in pictures_BChw], dim=1)


def picture_places(pictures_BChw: Sequence[Tensor]) -> Tensor:
    """Return where the tokens of pictures stand, (L, 4); the first is the one that is made."""
    places = list[Tensor]()
    for number, picture_BChw in enumerate(pictures_BChw):
        height, width = picture_BChw.shape[-2:]
        axes = (SOURCE_STEP * number,), range(height), range(width), (0,)
        places.append(torch.cartesian_prod(*(torch.tensor(list(axis)) for axis in axes)))
    return torch.cat(places).to(pictures_BChw[0].device)


def text_places(text_BLD: Tensor) -> Tensor:
    """Return where the tokens of a text stand, (L, 4)."""
    places_L4 = torch.zeros(text_BLD.shape[1], 4, dtype=torch.long, device=text_BLD.device)
    places_L4[:, 3] = torch.arange(text_BLD.shape[1], device=text_BLD.device)
    return places_L4


def as_source(picture: Image.Image, multiple: int) -> Image.Image:
    """Make a picture a source as diffusers' pipeline does.

    One larger than 1024 x 1024 in area is shrunk to that; then the middle is cut out whose sides
    are multiples of `multiple`. Pixels.
    """
    if math.prod(picture.size) > LARGEST:
        scale = math.sqrt(LARGEST / math.prod(picture.size))
        smaller = int(picture.width * scale), int(picture.height * scale)
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)
    width, height = (side // multiple * multiple for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
