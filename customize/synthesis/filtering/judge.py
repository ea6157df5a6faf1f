"""A second opinion: a model that sees both pictures is asked whether the edit was made, alone.

It describes before it scores: asked for a bare number, such models answer the same one for all.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from customize.synthesis.pictures.draw_pairs import DrawnPair
from customize.synthesis.writing.chat import Chat, Reply, ServerOptions, object_schema
from customize.synthesis.writing.read_answer import json_object

SCORES = ("instruction_following", "preservation")
DESCRIPTIONS = ("first_picture", "second_picture", "differences")
SCHEMA = object_schema(
    {name: {"type": "string"} for name in DESCRIPTIONS}
    | {name: {"type": "number", "minimum": 0, "maximum": 10} for name in SCORES}
)
TASK = (
    "You see a picture and the result of editing it. The instruction was: {instruction!r}. First "
    "describe the first picture, then the second, then every difference between them. Then give "
    "two scores from 0 to 10: instruction_following (10: the change asked for is there, complete "
    "and clear) and preservation (10: everything that the instruction does not touch is as it "
    "was). Answer with a JSON object of the keys first_picture, second_picture, differences, "
    "instruction_following and preservation, and nothing else."
)


@dataclass(frozen=True)
class Opinion:
    """Two scores, 0 to 10, or why there are none."""

    scores: tuple[float, float] | None = None
    failure: str = ""

    def likes(self, least: float) -> bool:
        """Tell whether both scores reach `least`; no answer is no."""
        return self.scores is not None and min(self.scores) >= least


class Judge:
    """Any vision model behind a server of OpenAI's protocol."""

    def __init__(self, options: ServerOptions) -> None:
        """Open the server; raises SynthesisError as `Chat` does."""
        self._chat, self.name = Chat(options), options.model

    def judge(self, pairs: Sequence[DrawnPair]) -> list[Opinion]:
        """Ask for each pair; raises SynthesisError for a server that is of no use."""
        questions = [_question(pair) for pair in pairs]
        replies = self._chat.ask_all(questions, [0] * len(pairs), SCHEMA)
        return [_opinion(reply) for reply in replies]


def _question(pair: DrawnPair) -> list[dict[str, object]]:
    content: list[dict[str, object]] = [
        {"type": "text", "text": TASK.format(instruction=pair.rewrite.instruction)}
    ]
    pictures: list[dict[str, object]] = [
        {"type": "image_url", "image_url": {"url": _data_url(picture)}}
        for picture in (pair.first, pair.second)
    ]
    return [{"role": "user", "content": content + pictures}]


def _data_url(picture: Image.Image) -> str:
    held = io.BytesIO()
    picture.save(held, "PNG")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


def _opinion(reply: Reply) -> Opinion:
    if reply.refused or reply.failure:
        return Opinion(failure=reply.failure or "refused")
    content = json_object(reply.text.strip()) or {}
    scores = [content.get(name) for name in SCORES]
    numbers = [s for s in scores if isinstance(s, int | float) and not isinstance(s, bool)]
    if len(numbers) != len(SCORES) or not all(0 <= number <= 10 for number in numbers):
        return Opinion(failure="not as asked")
    return Opinion((float(numbers[0]), float(numbers[1])))
