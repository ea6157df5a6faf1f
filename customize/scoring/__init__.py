"""Scores of edits, what the InstructPix2Pix paper and the field measure: edits in, numbers out.

    models = open_models("embedded")
    scores = score_edits([Item("dog.png", "paint the dog red", "red_dog.png")], models)
    scores.mean("clip_image")   # and scores.rows: a number for every edit and metric

`docs/scoring.md` has every metric's formula, range and source; `metrics/` computes them.
"""

from typing import TYPE_CHECKING, Any

from customize.scoring.items import Item, MetricName, Models, Scores

if TYPE_CHECKING:
    from customize.scoring.metrics.score import score_edits
    from customize.scoring.networks.encoders import open_models

__all__ = ["Item", "MetricName", "Models", "Scores", "open_models", "score_edits"]


def __getattr__(name: str) -> Any:
    """Load torch only when pictures are to be looked at: counting choices needs none."""
    match name:
        case "score_edits":
            from customize.scoring.metrics.score import score_edits

            return score_edits
        case "open_models":
            from customize.scoring.networks.encoders import open_models

            return open_models
        case _:
            raise AttributeError(name)
