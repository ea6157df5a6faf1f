"""A judge for where there is no server: the CLIP that scores already look through."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from customize.scoring.judging.opinion import JudgedEdit, Opinion
from customize.scoring.networks.encoders import Clip


class ClipJudge:
    """Reads both scores from cosines: a rough judge, blind to detail, and always the same.

    It follows by the cosine of the picture's change and the instruction (`clip_instruction`, which
    the embedded CLIP was taught), and keeps by the cosine of both pictures (`clip_image`); cosines
    of 0 to 1 are scores of 0 to 10.
    """

    def __init__(self, clip: Clip) -> None:
        """Take an open CLIP."""
        self._clip, self.name, self.fingerprint = clip, f"CLIP {clip.name}", clip.fingerprint
        self.asked = "follows: 10 clip_instruction, keeps: 10 clip_image, from 0 on"

    def opinions(self, edits: Sequence[JudgedEdit]) -> list[Opinion]:
        """Compare the pictures of every edit, and their change with its instruction."""
        before_BD = self._clip.image_BD([edit.source for edit in edits])
        after_BD = self._clip.image_BD([edit.output for edit in edits])
        told_BD = self._clip.text_BD([edit.instruction for edit in edits])
        follows_B = F.cosine_similarity(after_BD - before_BD, told_BD).clamp(0, 1)
        keeps_B = F.cosine_similarity(before_BD, after_BD).clamp(0, 1)
        both = zip(follows_B.tolist(), keeps_B.tolist(), strict=True)
        return [Opinion((10 * follows, 10 * keeps)) for follows, keeps in both]
