"""Every metric: what it is called, what it needs, and its number for each of the items.

`docs/scoring.md` tells the same in words for users, with formulas and papers.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, assert_never

import numpy as np
from tqdm import tqdm

from customize.errors import ScoreError
from customize.scoring.items import (
    METRICS,
    Answer,
    Item,
    MetricName,
    Models,
    Picture,
    Scores,
)
from customize.scoring.metrics import lpips, pixels, similarities
from customize.scoring.metrics.judged import NO_JUDGE, Opinions
from customize.scoring.metrics.shift import shift
from customize.scoring.networks.embed import Vectors, embed, opened
from customize.scoring.networks.store import Store

JUDGED: frozenset[MetricName] = frozenset(("judge_follows", "judge_keeps"))
"""Metrics that are asked of a judge, who has to be named."""


def score_edits(
    items: Sequence[Item],
    models: Models,
    metrics: Sequence[MetricName] | None = None,
    *,
    at_once: int = 32,
    progress: bool = False,
) -> Scores:
    """Score finished edits by `metrics`, None for every metric that the items allow.

    A metric asked for by name that no item allows is an error; otherwise notes say what is missing
    and why. `at_once` pictures go through a network together. Raises ScoreError, and PairsError for
    pictures that cannot be read.
    """
    if not items:
        raise ScoreError("no edits to score; expected at least one; name a folder that holds some")
    wanted: list[MetricName] = [metric.name for metric in METRICS]
    if models.judge is None:
        wanted = [name for name in wanted if name not in JUDGED]
    if metrics is not None:
        wanted = named(metrics)
    vectors = embed(items, models, wanted, at_once=at_once, progress=progress)
    if "lpips" in wanted:
        lpips.keep_lpips(items, vectors.contents, models, at_once=at_once, progress=progress)
    opinions = None
    if JUDGED & set(wanted):
        opinions = Opinions(items, vectors.contents, models, at_once=at_once, progress=progress)
    rows: list[dict[MetricName, float]] = []
    missing: Counter[tuple[MetricName, str]] = Counter()
    for item in tqdm(items, "comparing", disable=None if progress else True, leave=False):
        row: dict[MetricName, float] = {}
        for name in wanted:
            answer = _answer(name, item, vectors, models.store, opinions)
            if isinstance(answer, str):
                missing[name, answer] += 1
            else:
                row[name] = answer
        rows.append(row)
    notes = [*_notes(missing, len(items), asked=metrics is not None), *_plain_note(items, rows)]
    return Scores(tuple(rows), tuple(notes))


def named(names: Sequence[str]) -> list[MetricName]:
    """Return metrics by name, each once; raises ScoreError for an unknown one."""
    known: dict[str, MetricName] = {metric.name: metric.name for metric in METRICS}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean {close[0]!r}?" if close else "choose one of them"
            raise ScoreError(f"metric {name!r}: unknown; expected {', '.join(known)}; {cure}")
    return [known[name] for name in dict.fromkeys(names)]


def models_needed(metrics: Sequence[MetricName] | None) -> tuple[bool, bool]:
    """Tell whether any of the metrics looks through a CLIP, and through a DINO; None is all.

    >>> models_needed(["psnr", "dino_concept"])
    (False, True)
    """
    names = [metric.name for metric in METRICS] if metrics is None else metrics
    starts = {name.partition("_")[0] for name in names}
    return "clip" in starts, "dino" in starts


def check_models(metrics: Sequence[MetricName], *, dino: bool, judge: bool = False) -> None:
    """Refuse metrics asked for by name that no picture can have here; `dino` if one was named.

    Called before edits are made, which may take hours. Raises ScoreError.
    """
    if not judge and (asked := [name for name in metrics if name in JUDGED]):
        raise ScoreError(f"metric {asked[0]!r} cannot be had: {NO_JUDGE}")
    if "dino_concept" in metrics and not dino:
        raise ScoreError(f"metric 'dino_concept' cannot be had: {similarities.NO_DINO}")
    if "lpips" in metrics and isinstance(why := lpips.lpips_network(), str):
        raise ScoreError(f"metric 'lpips' cannot be had: {why}, or leave it out")


def _notes(
    missing: Mapping[tuple[MetricName, str], int], count: int, *, asked: bool
) -> Iterator[str]:
    """Say what is left out and why; what was asked for and is wholly absent is an error."""
    for (name, why), times in missing.items():
        if asked and times == count:
            raise ScoreError(f"metric {name!r} was asked for and no edit has it: {why}")
        where = "" if times == count else f" for {times} of {count} edits"
        yield f"{name} is left out{where}: {why}"


def _plain_note(items: Sequence[Item], rows: Sequence[Mapping[MetricName, float]]) -> Iterator[str]:
    """Say what measures against texts cannot see, where a taught word is in an instruction."""
    against_texts = {"clip_direction", "clip_instruction", "clip_text"}
    for item, row in zip(items, rows, strict=True):
        if item.wording != item.instruction and against_texts & row.keys():
            yield (
                "texts are read in plain words, since no CLIP knows a taught one "
                f"({item.wording!r} for {item.instruction!r}): they tell any such thing from "
                "others, not yours from its like; CLIP-I and DINO do"
            )
            return


def _answer(
    name: MetricName, item: Item, vectors: Vectors, store: Store, opinions: Opinions | None
) -> Answer:
    match name:
        case "judge_follows" | "judge_keeps":
            assert opinions is not None, "opinions are asked for where they are wanted"
            return opinions.answer(item, ("judge_follows", "judge_keeps").index(name))
        case "clip_image":
            return similarities.clip_image(item, vectors)
        case "clip_direction":
            return similarities.clip_direction(item, vectors)
        case "clip_instruction":
            return similarities.clip_instruction(item, vectors)
        case "clip_text":
            return similarities.clip_text(item, vectors)
        case "clip_concept":
            return similarities.clip_concept(item, vectors)
        case "dino_concept":
            return similarities.dino_concept(item, vectors)
        case "psnr" | "ssim" | "lpips":
            if item.target is None:
                return "it needs a target (edited)"
            return _compared(name, (item.output, item.target), vectors, store)
        case "outside_change":
            if item.mask is None:
                return "it needs a mask, white where the edit may change the picture"
            return _compared(name, (item.output, item.source, item.mask), vectors, store)
        case "shift":
            return _compared(name, (item.output, item.source), vectors, store)
        case _:
            assert_never(name)


_Compared = Literal["psnr", "ssim", "lpips", "outside_change", "shift"]


def _compared(
    name: _Compared, pictures: Sequence[Picture], vectors: Vectors, store: Store
) -> Answer:
    """Compare pixels, or look up what comparing these pictures once gave."""
    key = vectors.contents.compared(name, *pictures)
    if (held := store.get([key]).get(key)) is not None:
        return float(held[0])
    compare = {
        "psnr": pixels.psnr,
        "ssim": pixels.ssim,
        "lpips": lpips.no_lpips,  # those that can be had were kept before
        "outside_change": pixels.outside_change,
        "shift": shift,
    }[name]
    answer = compare(*map(opened, pictures))
    if isinstance(answer, float):
        store.put({key: np.array([answer])})
    return answer
