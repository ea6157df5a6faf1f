"""Fields of a recipe that are fine alone and contradict each other.

They are found on plain values, not on a validated recipe: a recipe that is wrong elsewhere too gets
all its faults told at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from customize.errors import Fault
from customize.recipe.sections import ConditioningDropout, Preservation, Section
from customize.recipe.yaml_text import section_of


def contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Find fields that are fine alone and wrong together; `values` may hold other faults too."""
    yield from _concepts(values)
    train, adapter = section_of(values, "train"), section_of(values, "adapter")
    if train.get("steps") is not None and train.get("epochs") is not None:
        yield Fault(
            "train.epochs", "given beside train.steps", "keep one and set the other to null"
        )
    if "steps" in train and train["steps"] is None and train.get("epochs") is None:
        yield Fault("train.steps", "neither steps nor epochs", "set one of them")
    words = [item["word"] for item in _items(values) if item.get("word")]
    if train.get("word_learning_rate") is not None and not words:
        cure = "give one a word, or remove this"
        yield Fault("train.word_learning_rate", "no concept has a word", cure)
    yield from _offload(values)
    names = [str(name) for name in _sequence(adapter.get("targets"))]
    if len({*names}) < len(names):
        yield Fault("adapter.targets", "a target given twice", "keep it once")
    if adapter.get("text_encoder_rank") is not None and adapter.get("text_encoder") is not True:
        cure = "set text_encoder: true, or remove this"
        yield Fault("adapter.text_encoder_rank", "text_encoder is off", cure)
    yield from _shares(values)


def _concepts(values: Mapping[str, Any]) -> Iterator[Fault]:
    for key in ("name", "word"):
        first: dict[str, int] = {}
        for index, item in enumerate(_items(values)):
            written = item.get(key)
            if isinstance(written, str) and first.setdefault(written, index) != index:
                found = f"{written!r} is taken by concepts.{first[written]}"
                yield Fault(
                    f"concepts.{index}.{key}", found, f"give each concept a {key} of its own"
                )
    cure = "add `word: <...>`, or remove this"
    for index, item in enumerate(_items(values)):
        if item.get("word") is None and item.get("initializer") is not None:
            yield Fault(f"concepts.{index}.initializer", "no word to initialize", cure)
        if item.get("word") is None and item.get("vectors", 1) != 1:
            yield Fault(f"concepts.{index}.vectors", "no word to hold them", cure)


def _offload(values: Mapping[str, Any]) -> Iterator[Fault]:
    base, train = section_of(values, "base"), section_of(values, "train")
    if base.get("offload") is not True:
        return
    if base.get("quantization") in ("int8", "nf4"):
        found = f"base.quantization: {base['quantization']} beside it"
        yield Fault(
            "base.offload", found, "keep one: offload needs less memory, the other less time"
        )
    if train.get("compile") is True:
        found = "train.compile: true beside it, which cannot compile what moves its weights"
        yield Fault("base.offload", found, "switch one of the two off")


def _shares(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from too_much_dropout(values, "conditioning_dropout")
    kept = section_of(values, "preservation")
    shares = _total(kept, Preservation, "share", "regularization_share")
    largest = max(_number(kept.get("share")), _number(kept.get("regularization_share")))
    if largest <= 0.9 < shares:  # one that is too large by itself is told by its own range
        cure = "lower them to a sum of at most 0.9: the concept's own pairs need the rest"
        yield Fault("preservation", f"share + regularization_share = {shares:g}", cure)
    pairs, share = kept.get("regularization_pairs"), kept.get("regularization_share")
    if pairs is not None and not share:
        cure = "set regularization_share too, such as 0.2"
        yield Fault("preservation.regularization_pairs", "given, but none would be drawn", cure)
    if pairs is None and _number(share) > 0:
        cure = "name them in regularization_pairs, or remove this"
        yield Fault("preservation.regularization_share", "no pairs to draw from", cure)


def too_much_dropout(values: Mapping[str, Any], place: str) -> Iterator[Fault]:
    """Find shares of left-out conditions, in the section called `place`, that are above 1."""
    dropped = _total(section_of(values, place), ConditioningDropout, "text", "image", "both")
    if dropped > 1:
        found = f"text + image + both = {dropped:g}"
        yield Fault(place, found, "lower them to a sum of at most 1")


def _items(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = _sequence(values.get("concepts"))
    return [cast("dict[str, Any]", item) if isinstance(item, dict) else {} for item in items]


def _sequence(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else ()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _total(section: dict[str, Any], model: type[Section], *keys: str) -> float:
    values = (section.get(key, model.model_fields[key].default) for key in keys)
    return round(sum(map(_number, values)), 9)  # .1 + .2 + .7 is to be 1
