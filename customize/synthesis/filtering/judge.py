"""A second opinion on drawn pairs: a model that sees both pictures is asked once, alone."""

from __future__ import annotations

from collections.abc import Sequence

from customize.scoring.judging.chat import ServerOptions
from customize.scoring.judging.opinion import JudgedEdit, Opinion
from customize.scoring.judging.vision_model import VisionJudge
from customize.synthesis.pictures.draw_pairs import DrawnPair


class PairJudge:
    """Any vision model behind a server of OpenAI's protocol."""

    def __init__(self, options: ServerOptions) -> None:
        """Open the server; raises EndpointError as `Chat` does."""
        self._judge, self.name = VisionJudge(options, times=1), options.model

    def judge(self, pairs: Sequence[DrawnPair]) -> list[Opinion]:
        """Ask for each pair; raises EndpointError for a server that is of no use."""
        return self._judge.opinions(
            [JudgedEdit(pair.first, pair.rewrite.instruction, pair.second) for pair in pairs]
        )
