"""How a language model is asked for an edit: the task in words, and examples written by hand.

The examples are our own, in the spirit of InstructPix2Pix's 700 (Brooks et al. 2023, 3.1.1).
"""

from __future__ import annotations

import json

from customize.synthesis.writing.rewrite import Rewrite

TASK = (
    "You invent edits of pictures. Given the caption of a picture, think of one change that a "
    "person could ask for and that shows in the picture: another colour, material, season, "
    "weather, time of day, style or background, a thing added, taken away or replaced. Write the "
    "instruction as a person would say it, and the caption of the picture after the change. Leave "
    "all other words of the caption as they are."
)
FORMAT = (
    'Answer with a JSON object and nothing else: {"instruction": "...", "edited_caption": "..."}'
)

EXAMPLES = (
    Rewrite(
        "a wooden boat on a calm lake", "make it sunset", "a wooden boat on a calm lake at sunset"
    ),
    Rewrite(
        "a woman riding a horse through a field",
        "swap the horse for a zebra",
        "a woman riding a zebra through a field",
    ),
    Rewrite(
        "a brick house with a green door", "paint the door red", "a brick house with a red door"
    ),
    Rewrite(
        "two cups of coffee on a marble table",
        "take one cup away",
        "one cup of coffee on a marble table",
    ),
    Rewrite(
        "a street in Lisbon", "turn it into a watercolor", "a watercolor of a street in Lisbon"
    ),
    Rewrite("a mountain road in summer", "let it snow", "a mountain road in winter, snow falling"),
)  # fmt: skip


def line_prompt(caption: str, examples: tuple[Rewrite, ...] = EXAMPLES) -> str:
    """Write the few-shot prompt of models that go on with a text; it ends in `Edit:`."""
    shown = "".join(f"{completed(example)}\n\n" for example in examples)
    return f"{shown}Caption: {caption}\nEdit:"


def completed(example: Rewrite) -> str:
    """Write one example as `line_prompt` shows it."""
    return (
        f"Caption: {example.caption}\nEdit: {example.instruction}\n"
        f"Edited caption: {example.edited_caption}"
    )


def chat_prompt(caption: str) -> list[dict[str, str]]:
    """Write the messages for models that are talked to."""
    messages = [{"role": "system", "content": f"{TASK} {FORMAT}"}]
    for example in EXAMPLES:
        answer = {"instruction": example.instruction, "edited_caption": example.edited_caption}
        messages += [
            {"role": "user", "content": example.caption},
            {"role": "assistant", "content": json.dumps(answer)},
        ]
    return [*messages, {"role": "user", "content": caption}]
