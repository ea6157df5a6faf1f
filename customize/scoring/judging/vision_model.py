"""A judge that sees: any vision model behind a server of OpenAI's protocol.

It describes before it scores: asked for a bare number, such models answer the same one for all.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from statistics import median

from PIL import Image

from customize.scoring.judging.chat import Chat, Reply, ServerOptions, json_object, object_schema
from customize.scoring.judging.opinion import JudgedEdit, Opinion

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
"""The prompt, which goes into reports and into the name of all that follows from it."""


class VisionJudge:
    """Asks a server `times` for each edit, with seeds of their own, and takes medians."""

    def __init__(self, options: ServerOptions, *, times: int = 3) -> None:
        """Open the server; raises EndpointError as `Chat` does."""
        self._chat, self.name, self._times = Chat(options), options.model, times
        self.asked = f"{times} times, medians: {TASK}"

    @property
    def fingerprint(self) -> str:
        """Name the model, the prompt and how often it is asked."""
        facts = f"{self.name} {self.asked}"
        return hashlib.sha256(facts.encode()).hexdigest()

    def opinions(self, edits: Sequence[JudgedEdit]) -> list[Opinion]:
        """Ask for each edit; raises EndpointError for a server that is of no use."""
        questions = [_question(edit) for edit in edits for _ in range(self._times)]
        seeds = [*range(self._times)] * len(edits)
        replies = self._chat.ask_all(questions, seeds, SCHEMA)
        return [
            _middle([_opinion(reply) for reply in replies[start : start + self._times]])
            for start in range(0, len(replies), self._times)
        ]


def _question(edit: JudgedEdit) -> list[dict[str, object]]:
    content: list[dict[str, object]] = [
        {"type": "text", "text": TASK.format(instruction=edit.instruction)}
    ]
    pictures: list[dict[str, object]] = [
        {"type": "image_url", "image_url": {"url": _data_url(picture)}}
        for picture in (edit.source, edit.output)
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


def _middle(opinions: Sequence[Opinion]) -> Opinion:
    """Return the median of each score among the answers; the first failure where there is none."""
    scores = [opinion.scores for opinion in opinions if opinion.scores is not None]
    if not scores:
        return opinions[0]
    follows, keeps = zip(*scores, strict=True)
    return Opinion((float(median(follows)), float(median(keeps))))
