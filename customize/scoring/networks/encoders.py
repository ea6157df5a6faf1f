"""The networks scores are read from: a CLIP for pictures and texts, a DINO for pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from customize.editing.device import device_for
from customize.errors import ScoreError
from customize.families.loading.quiet import hush, quiet_loading
from customize.scoring.items import Models
from customize.scoring.networks.model_files import DINO_TYPES, find_model
from customize.scoring.networks.store import Store

_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)


class Clip:
    """A CLIP: unit vectors (B, D) of pictures and of texts, in float32 on the CPU."""

    def __init__(self, name: str, fingerprint: str, model: Any, processor: Any, words: Any) -> None:
        """Take a transformers CLIPModel, its image processor and its tokenizer."""
        self.name, self.fingerprint = name, fingerprint
        self._model, self._processor, self._words = model, processor, words

    @torch.no_grad()
    def image_BD(self, pictures: Sequence[Image.Image]) -> Tensor:  # noqa: N802 - axes
        """Embed RGB pictures, scaled and cropped as the model's own processor does."""
        pixels = self._processor(list(pictures), return_tensors="pt")["pixel_values"]
        found = self._model.get_image_features(pixel_values=pixels.to(self._model.device))
        return F.normalize(found.pooler_output.float().cpu(), dim=-1)

    @torch.no_grad()
    def text_BD(self, texts: Sequence[str]) -> Tensor:  # noqa: N802 - axes
        """Embed texts; what is longer than the model reads is cut, as CLIP's authors do."""
        tokens = self._words(list(texts), padding=True, truncation=True, return_tensors="pt")
        found = self._model.get_text_features(**tokens.to(self._model.device))
        return F.normalize(found.pooler_output.float().cpu(), dim=-1)


class Dino:
    """A DINO or DINOv2: unit vectors (B, D) of pictures, in float32 on the CPU."""

    def __init__(self, name: str, fingerprint: str, model: Any, processor: Any) -> None:
        """Take a transformers vision model that answers with `last_hidden_state`."""
        self.name, self.fingerprint = name, fingerprint
        self._model, self._processor = model, processor

    @torch.no_grad()
    def image_BD(self, pictures: Sequence[Image.Image]) -> Tensor:  # noqa: N802 - axes
        """Embed RGB pictures by the class token (Caron et al. 2021; DreamBooth measures so)."""
        pixels = self._processor(list(pictures), return_tensors="pt")["pixel_values"]
        hidden_BLD = self._model(pixel_values=pixels.to(self._model.device)).last_hidden_state
        return F.normalize(hidden_BLD[:, 0].float().cpu(), dim=-1)


def open_clip(name: str = "embedded", device: torch.device | str | None = None) -> Clip:
    """Open a CLIP: `embedded`, a folder or a hub id; `device` None is the accelerator if any.

    Raises ScoreError, and EditError for a device that is not here.
    """
    found = find_model(name, "CLIP", ("clip",))
    hush()
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    try:
        with quiet_loading():
            model = CLIPModel.from_pretrained(found.folder, use_safetensors=True, dtype=_DTYPE)
            processor = AutoImageProcessor.from_pretrained(found.folder)
            words = AutoTokenizer.from_pretrained(found.folder)
    except _UNREADABLE as error:
        raise _broken(name, "CLIP", found.folder, error) from error
    return Clip(name, found.fingerprint, _ready(model, device), processor, words)


def open_dino(name: str, device: torch.device | str | None = None) -> Dino:
    """Open a DINO: a folder or a hub id such as facebook/dinov2-base.

    Raises ScoreError, and EditError for a device that is not here.
    """
    found = find_model(name, "DINO", DINO_TYPES)
    hush()
    from transformers import AutoImageProcessor, AutoModel

    # A ViT's pooler is no part of DINO: it would be made up, with a warning, and never read.
    options = {"add_pooling_layer": False} if found.kind == "vit" else {}
    try:
        with quiet_loading():
            model = AutoModel.from_pretrained(
                found.folder, use_safetensors=True, dtype=_DTYPE, **options
            )
            processor = AutoImageProcessor.from_pretrained(found.folder)
    except _UNREADABLE as error:
        raise _broken(name, "DINO", found.folder, error) from error
    return Dino(name, found.fingerprint, _ready(model, device), processor)


_DTYPE = torch.float32
"""Whatever the files hold: half precision moves a similarity in its third digit."""


def _ready(model: Any, device: torch.device | str | None) -> Any:
    return model.to(device_for(device)).requires_grad_(False).eval()


def _broken(name: str, kind: str, folder: Path, error: Exception) -> ScoreError:
    first = (str(error).splitlines() or [""])[0]
    return ScoreError(
        f"{kind} {name!r}: it cannot be loaded from {folder} ({type(error).__name__}: {first}); "
        "expected a complete folder as `save_pretrained` writes it; save or download it again"
    )


def open_models(
    clip: str | None = "embedded",
    dino: str | None = None,
    *,
    device: torch.device | str | None = None,
    cache: Path | None = None,
) -> Models:
    """Open models by name: `embedded` (the embedded base's CLIP), a folder or a hub id.

    Answers are kept in the file `cache`, in memory where it is None. Raises ScoreError.
    """
    return Models(
        clip=None if clip is None else open_clip(clip, device),
        dino=None if dino is None else open_dino(dino, device),
        store=Store(cache),
        device=device,
    )
