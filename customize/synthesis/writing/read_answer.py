"""What a language model answered -> an edit, or the reason it is none. The one door for its text.

Two spellings: a JSON object (endpoints) and the two lines of the few-shot prompt (local models).
"""

from __future__ import annotations

import re

from customize.scoring.judging.chat import LONGEST_ANSWER, json_object
from customize.synthesis.writing.rewrite import Answer, Rejection, Rewrite

KEYS = ("instruction", "edited_caption")

_FENCE = re.compile(r"^```[a-z]*\s*\n(.*?)\n?```$", re.DOTALL)
_LINES = re.compile(r"^\s*(?P<edit>[^\n]+)\n\s*Edited caption:(?P<after>[^\n]+)(?:\n|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]")


def read_json_answer(caption: str, text: str) -> Answer:
    """Read `{"instruction": ..., "edited_caption": ...}`, alone or in one code fence."""
    text = text.strip()
    if not text:
        return Rejection(caption, "no answer")
    if (fenced := _FENCE.match(text[:LONGEST_ANSWER])) is not None:
        text = fenced[1]
    content = json_object(text)
    if content is None:
        return Rejection(caption, "not as asked", shortened(text))
    held = [content.get(key) for key in KEYS]
    if set(content) != set(KEYS) or not all(isinstance(value, str) for value in held):
        return Rejection(caption, "not as asked", shortened(text))
    return _rewrite(caption, str(held[0]), str(held[1]), text)


def read_line_answer(caption: str, text: str) -> Answer:
    """Read what follows `Edit:` in the few-shot prompt: the edit, then `Edited caption: ...`.

    >>> read_line_answer("a dog", " make it a cat\\nEdited caption: a cat\\n\\nCaption: a car")
    Rewrite(caption='a dog', instruction='make it a cat', edited_caption='a cat')
    """
    if not text.strip():
        return Rejection(caption, "no answer")
    found = _LINES.match(text[:LONGEST_ANSWER])
    if found is None:
        return Rejection(caption, "not as asked", shortened(text))
    return _rewrite(caption, found["edit"], found["after"], text)


def shortened(text: str) -> str:
    """Keep the start of a text, on one line and without control characters, for reports."""
    line = " ".join(_CONTROL.sub(" ", text[:400]).split())
    return line if len(line) <= 120 else f"{line[:119]}…"


def one_line(text: str) -> str:
    """Put a text on one line: control characters go, runs of spaces become one.

    >>> one_line(" a dog\\n in\\tsnow ")
    'a dog in snow'
    """
    return " ".join(_CONTROL.sub(" ", text).split())


def _rewrite(caption: str, instruction: str, edited: str, text: str) -> Answer:
    instruction, edited = one_line(instruction), one_line(edited)
    if not instruction or not edited:
        return Rejection(caption, "not as asked", shortened(text))
    return Rewrite(caption, instruction, edited)
