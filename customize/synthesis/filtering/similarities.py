"""What a CLIP says of a drawn pair: how alike its pictures are, how well each fits its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch.nn.functional as F
from torch import Tensor

from customize.scoring.networks.encoders import Clip
from customize.synthesis.pictures.draw_pairs import DrawnPair


@dataclass(frozen=True)
class Similarities:
    """Four cosines of a pair, as InstructPix2Pix filters by (Brooks et al. 2023, section 3.1.2).

    `pictures` compares the two pictures, `first` and `second` each picture with its caption,
    `direction` the change of the picture with the change of the caption.
    """

    pictures: float
    first: float
    second: float
    direction: float

    def facts(self) -> dict[str, float]:
        """Return them as plain values, rounded as far as they mean something."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def similarities(clip: Clip, pairs: Sequence[DrawnPair]) -> tuple[list[Similarities], Tensor]:
    """Compare pairs; also returns the unit vectors (B, D) of their second pictures."""
    first_BD = clip.image_BD([pair.first for pair in pairs])
    second_BD = clip.image_BD([pair.second for pair in pairs])
    before_BD = clip.text_BD([pair.rewrite.caption for pair in pairs])
    after_BD = clip.text_BD([pair.rewrite.edited_caption for pair in pairs])
    columns = (
        F.cosine_similarity(first_BD, second_BD),
        F.cosine_similarity(first_BD, before_BD),
        F.cosine_similarity(second_BD, after_BD),
        F.cosine_similarity(second_BD - first_BD, after_BD - before_BD),
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Similarities(*row) for row in rows], second_BD
