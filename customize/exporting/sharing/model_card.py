"""The model card: Markdown with the front matter that hubs read, from what the adapter file says.

Front matter's fields are those of https://huggingface.co/docs/hub/model-cards; `instance_prompt`
and `widget` make hubs show the trigger and a gallery.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.drawing.escape import code, command, fenced, markdown, visible
from customize.errors import ExportError
from customize.exporting.formats.trigger_words import examples
from customize.families import profile_of
from customize.files.parse import load_json

if TYPE_CHECKING:
    from customize.adapters.header import Header

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_KINDS = {"cross_attention_kv": "cross-attention keys and values", "low_rank": "low-rank"}
_SHOWN = ("steps", "seconds", "loss", "best_held_out_error")


@dataclass(frozen=True)
class CardPicture:
    """A picture on the card: its path from the card, and the instruction that made it."""

    path: str
    instruction: str


def card_text(
    header: Header,
    adapter: str,
    *,
    license_id: str = "unknown",
    pictures: Sequence[CardPicture] = (),
    scores: Mapping[str, float] | None = None,
    files: Sequence[str] = (),
) -> str:
    """Write the card of the file named `adapter`.

    `license_id` is a hub's licence name; `files` are the exports that lie beside the card.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(**_front_matter(header, license_id, pictures))
    # YAML quotes what it must; without line ends in a text no line of it can end the front matter
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(
        _body(header, adapter, pictures, scores or {}, files)
    )


def read_scores(path: Path) -> dict[str, float]:
    """Read the means of `customize score`, or every number of other JSON, named by its keys.

    Raises ExportError.
    """
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{path}: it cannot be read ({error}); expected JSON with scores; name another"
        ) from None
    ours = isinstance(content, dict) and content.get("format") == "customize-scores"
    try:
        found = dict(_means(content) if ours else _numbers(content, ""))
    except (KeyError, TypeError, AttributeError):
        found = {}
    if not found:
        raise ExportError(
            f"{path}: it holds no numbers; expected the scores.json of `customize score`, or "
            "numbers by name; name another"
        )
    return found


def latest_preview(adapter: Path) -> Path | None:
    """Find the last contact sheet of the run that left `adapter` in its folder."""
    return max((adapter.parent / "previews").glob("step_*.png"), default=None)


def _front_matter(
    header: Header, license_id: str, pictures: Sequence[CardPicture]
) -> dict[str, Any]:
    words = [concept.word for concept in header.concepts if concept.word]
    prompt = ", ".join(words) or _one_line(next(examples(header), "")) or None
    base = header.base_name if _HUB_ID.fullmatch(header.base_name) else None
    tag = profile_of(header.family).front_ends.tag
    kind = "dora" if header.decompose else "lora" if header.method == "low_rank" else "adapter"
    return {
        "license": license_id,
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "base_model": base,
        "base_model_relation": "adapter" if base else None,
        "instance_prompt": prompt,
        "tags": ["diffusers", tag, "image-editing", "customize", kind],
        "widget": [{"text": _one_line(p.instruction), "output": {"url": p.path}} for p in pictures]
        or None,
    }


def _body(
    header: Header,
    adapter: str,
    pictures: Sequence[CardPicture],
    scores: Mapping[str, float],
    files: Sequence[str],
) -> Iterator[str]:
    names = ", ".join(concept.name for concept in header.concepts) or Path(adapter).stem
    yield f"# {markdown(names)}\n"
    yield (
        f"Teaches {code(header.base_name)}, a model that edits pictures by instructions, "
        f"{_concepts(header)}.\n"
    )
    yield from ([f"![{markdown(p.instruction)}]({p.path})\n" for p in pictures])
    yield "## Instructions it was taught with\n"
    yield from (f"- {code(instruction)}" for instruction in examples(header))
    yield f"\n## Use\n\n{fenced(_command(header, adapter))}\n"
    if files:
        yield "Files for other programs:\n"
        yield from (f"- {code(name)}" for name in sorted(files))
        yield ""
    yield "## How it was made\n\n| | |\n| --- | --- |"
    yield from (f"| {name} | {value} |" for name, value in _facts(header))
    if scores:
        yield "\n## Scores\n\n| score | value |\n| --- | --- |"
        yield from (f"| {markdown(name)} | {value:.4g} |" for name, value in scores.items())
    yield (
        "\n## Limits\n\nIt was taught from few pictures: expect it on scenes like those, and see "
        "what it does to others before relying on it. It inherits the base's limits and licence.\n"
    )


def _concepts(header: Header) -> str:
    told = [
        f"the concept {markdown(concept.name)}"
        + (f" under the word {code(concept.word)}" if concept.word else "")
        for concept in header.concepts
    ]
    return " and ".join(told) or "a new edit"


def _command(header: Header, adapter: str) -> str:
    instruction = _one_line(next(examples(header), "make it better"))
    base = [] if header.base_name == "embedded" else ["--base", header.base_name]
    options = ["--adapter", adapter, *base]
    if instruction.startswith("-"):  # `--` ends the options: it is none of them
        return command("customize", "edit", *options, "--", "picture.png", instruction)
    return command("customize", "edit", "picture.png", instruction, *options)


def _facts(header: Header) -> Iterator[tuple[str, str]]:
    base = code(header.base_name, cell=True)
    yield "base", f"{base} (weights {code(header.base_fingerprint[:12], cell=True)})"
    rank = f" of rank {header.rank}" if header.rank else ""
    yield (
        "adapter",
        ("DoRA" if header.decompose else _KINDS.get(header.method, header.method)) + rank,
    )
    if header.pairs:
        yield "pairs of pictures", str(len(header.pairs))
    for name in _SHOWN:
        if name in header.training:
            yield name.replace("_", " "), f"{header.training[name]:.4g}"
    made = ", ".join(f"{name} {number}" for name, number in header.versions.items())
    yield "made with", markdown(made)


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def _means(content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name each mean of a scores.json by what was scored and by its metric."""
    for variant in content["variants"]:
        for metric, found in variant["means"].items():
            if found is not None and found["mean"] is not None:
                yield f"{variant['label']}: {metric}", float(found["mean"])


def _numbers(content: Any, place: str) -> Iterator[tuple[str, float]]:
    """Walk through JSON and name each number by its keys."""
    match content:
        case bool():
            return
        case int() | float():
            yield place or "score", float(content)
        case dict():
            for key, value in content.items():
                yield from _numbers(value, f"{place} {key}".strip().replace("_", " "))
        case _:
            return
