"""Metrics that compare embeddings: cosines between vectors of pictures and texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from customize.scoring.items import Answer, Item, Picture
from customize.scoring.networks.embed import Vectors

NO_CLIP = "no CLIP was named (--clip)"
NO_DINO = "no DINO was named (--dino facebook/dinov2-base, or a folder)"
NO_REFERENCES = "no pictures of the concept are known (its targets)"


def clip_image(item: Item, vectors: Vectors) -> Answer:
    """Cosine of source and output: how much of the picture stayed (Brooks et al. 2023, 4.1)."""
    if vectors.clip_pictures is None:
        return NO_CLIP
    return _cosine(_clip(vectors, item.source), _clip(vectors, item.output))


def clip_direction(item: Item, vectors: Vectors) -> Answer:
    """Cosine of the picture's change and the caption's change (Gal et al. 2022, equation 2)."""
    before, after = item.source_caption, item.target_caption
    if vectors.clip_texts is None:
        return NO_CLIP
    if before is None or after is None:
        return "it needs captions of source and target (source_caption, edited_caption)"
    if before == after:
        return "its two captions are the same, so there is no direction"
    told = vectors.clip_texts[after] - vectors.clip_texts[before]
    return _cosine(_change(item, vectors), told)


def clip_instruction(item: Item, vectors: Vectors) -> Answer:
    """Cosine of the picture's change and the instruction itself: a direction without captions.

    The embedded CLIP was taught that (`embedded/fitting/clip.py`); of others it is a rough guess.
    """
    if vectors.clip_texts is None:
        return NO_CLIP
    return _cosine(_change(item, vectors), vectors.clip_texts[item.wording])


def clip_text(item: Item, vectors: Vectors) -> Answer:
    """Cosine of the output and the target's caption: CLIPScore (Hessel et al. 2021) by 100."""
    if vectors.clip_texts is None:
        return NO_CLIP
    if item.target_caption is None:
        return "it needs a caption of the target (edited_caption)"
    return _cosine(_clip(vectors, item.output), vectors.clip_texts[item.target_caption])


def clip_concept(item: Item, vectors: Vectors) -> Answer:
    """Mean cosine of the output and the concept's pictures: CLIP-I (Ruiz et al. 2023, 4.2)."""
    if vectors.clip_pictures is None:
        return NO_CLIP
    if not item.references:
        return NO_REFERENCES
    known = torch.stack([_clip(vectors, picture) for picture in item.references])
    return _cosine(_clip(vectors, item.output)[None], known)


def dino_concept(item: Item, vectors: Vectors) -> Answer:
    """Mean cosine of the output and the concept's pictures by DINO (Ruiz et al. 2023, 4.2)."""
    held = vectors.dino_pictures
    if held is None:
        return NO_DINO
    if not item.references:
        return NO_REFERENCES
    key = vectors.contents.key
    known = torch.stack([held[key(picture)] for picture in item.references])
    return _cosine(held[key(item.output)][None], known)


def _clip(vectors: Vectors, picture: Picture) -> Tensor:
    assert vectors.clip_pictures is not None
    return vectors.clip_pictures[vectors.contents.key(picture)]


def _change(item: Item, vectors: Vectors) -> Tensor:
    """Return the change of the picture's unit vector (D,), zero for a copy."""
    return _clip(vectors, item.output) - _clip(vectors, item.source)


def _cosine(one: Tensor, other: Tensor) -> float:
    """Return the mean cosine along the last axis; a vector of zeros has a cosine of 0."""
    return float(F.cosine_similarity(one.double(), other.double(), dim=-1).mean())
