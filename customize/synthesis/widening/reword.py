"""Other words for the same instruction: by patterns, offline, or by a model behind an endpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence

from customize.scoring.judging.chat import Chat, object_schema
from customize.synthesis.writing.read_answer import json_object, one_line

PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"(?:turn|change|transform|make) the (?P<a>.+) into (?P<b>.+)",
        ("turn the {a} into {b}", "replace the {a} with {b}", "change the {a} into {b}",
         "swap the {a} for {b}"),
    ),
    (
        r"(?:replace|swap) the (?P<a>.+) (?:with|for|by) (?P<b>.+)",
        ("replace the {a} with {b}", "turn the {a} into {b}", "swap the {a} for {b}",
         "change the {a} into {b}"),
    ),
    (
        r"(?:give it|make it in|put it in|turn it into|show it in) (?P<b>(?:the|our|my) .+)",
        ("give it {b}", "make it in {b}", "show it in {b}"),
    ),
    (
        r"(?:put|place|add) (?P<a>.+) (?:on|to|in|onto) (?P<b>it|the picture|this)",
        ("put {a} on {b}", "add {a} to {b}", "place {a} on {b}"),
    ),
    (
        r"make the (?P<a>\S+(?: \S+)?) (?P<b>\S+)",
        ("make the {a} {b}", "turn the {a} {b}"),
    ),
)  # fmt: skip
_MARKED = re.compile(r"<[^<>\s]+>")
SCHEMA = object_schema({"wordings": {"type": "array", "items": {"type": "string"}}})
TASK = (
    "Word the given instruction for editing a picture in {count} other ways, as different people "
    "would say it. The meaning must stay exactly the same; words in angle brackets must stay as "
    'they are. Answer with a JSON object and nothing else: {{"wordings": ["...", ...]}}'
)


def by_patterns(instruction: str) -> list[str]:
    """List wordings of an instruction, itself first; alone where no pattern fits.

    >>> by_patterns("turn the dog into <my-dog>")[1:]
    ['replace the dog with <my-dog>', 'change the dog into <my-dog>', 'swap the dog for <my-dog>']
    """
    for pattern, wordings in PATTERNS:
        found = re.fullmatch(pattern, instruction.strip(), re.IGNORECASE)
        if found is not None:
            parts = {name: text for name, text in found.groupdict().items() if text}
            others = [wording.format(**parts) for wording in wordings]
            return list(dict.fromkeys([instruction.strip(), *others]))
    return [instruction.strip()]


def by_endpoint(chat: Chat, instructions: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Ask for `count` other wordings of each; each list begins with the instruction itself.

    What loses a marked word, repeats or is longer than three times the instruction is left out.
    """
    questions = [
        [
            {"role": "system", "content": TASK.format(count=count)},
            {"role": "user", "content": instruction},
        ]
        for instruction in instructions
    ]
    replies = chat.ask_all(questions, [seed] * len(questions), SCHEMA)
    return [
        usable(instruction, (json_object(reply.text.strip()) or {}).get("wordings"))
        for instruction, reply in zip(instructions, replies, strict=True)
    ]


def usable(instruction: str, answer: object) -> list[str]:
    """Keep of an answer what says the same about the same marked words."""
    marked = sorted(_MARKED.findall(instruction))
    kept = [instruction]
    for text in answer if isinstance(answer, list) else []:
        wording = one_line(text) if isinstance(text, str) else ""
        same = sorted(_MARKED.findall(wording)) == marked
        if wording and same and len(wording) <= 3 * len(instruction) + 20:
            kept.append(wording)
    return list(dict.fromkeys(kept))
