"""The filter: thresholds, choice among a prompt's samples, the judge, and its report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from builders.chat_server import chat_server
from builders.pairs import scene

from customize.scoring.judging.chat import ServerOptions
from customize.synthesis.filtering.choose import Candidate, choose
from customize.synthesis.filtering.judge import PairJudge
from customize.synthesis.filtering.similarities import Similarities
from customize.synthesis.filtering.thresholds import Thresholds, keeping_share
from customize.synthesis.pictures.draw_pairs import DrawnPair, PairSettings
from customize.synthesis.writing.rewrite import Rewrite

GOOD = Similarities(0.9, 0.3, 0.3, 0.4)


def test_a_pair_misses_the_first_threshold_it_is_below() -> None:
    thresholds = Thresholds()
    assert thresholds.missed(GOOD) is None
    assert thresholds.missed(Similarities(0.69, 0.1, 0.3, 0.4)) == "pictures"
    assert thresholds.missed(Similarities(0.7, 0.1, 0.1, 0.1)) == "first"
    assert thresholds.missed(Similarities(0.7, 0.2, 0.1, 0.1)) == "second"
    assert thresholds.missed(Similarities(0.7, 0.2, 0.2, 0.19)) == "direction"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 1.0])
def test_thresholds_chosen_by_a_trial_keep_the_share(share: float) -> None:
    rows = np.random.default_rng(0).normal(0.3, [[0.1, 0.2, 0.05, 0.3]], (400, 4))
    trial = [Similarities(*row) for row in rows.tolist()]
    thresholds = keeping_share(share, trial)
    kept = sum(thresholds.missed(found) is None for found in trial) / len(trial)
    assert kept == pytest.approx(share, abs=0.02)
    assert keeping_share(share, trial[::-1]) == thresholds


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_of_a_few_tries_the_share_is_kept_as_well(share: float, count: int) -> None:
    trial = [
        Similarities(*row) for row in np.random.default_rng(1).normal(size=(count, 4)).tolist()
    ]
    thresholds = keeping_share(share, trial)
    kept = sum(thresholds.missed(found) is None for found in trial)
    wanted = max(1, round(share * count))
    assert wanted <= kept <= wanted + 2  # of so few, some share a rank


def test_pairs_that_did_not_change_are_not_kept_for_being_alike() -> None:
    random = np.random.default_rng(2)

    def pair(alike: float, direction: float) -> Similarities:
        return Similarities(alike, random.normal(0.3, 0.01), random.normal(0.3, 0.01), direction)

    changed = [pair(0.5, 0.5 + n / 1000) for n in range(50)]
    unchanged = [pair(0.9, n / 1000) for n in range(50)]
    unlike = [pair(n / 1000, 0.9) for n in range(10)]
    thresholds = keeping_share(0.1, [*changed, *unchanged, *unlike])
    kept = [p for p in (*changed, *unchanged, *unlike) if thresholds.missed(p) is None]
    assert len(kept) == 11
    assert set(kept) <= set(changed)


def candidate(direction: float, angle: float = 0.0, liked: bool = True) -> Candidate:
    vector_D = torch.tensor([np.cos(angle), np.sin(angle)])
    return Candidate(Similarities(0.9, 0.3, 0.3, direction), vector_D, liked)


def test_the_best_directions_are_kept_and_no_two_alike() -> None:
    candidates = [
        candidate(0.3, 0.0),
        candidate(0.5, 0.01),  # like the one before, and better
        candidate(0.4, 1.0),
        candidate(0.1, 2.0),
        candidate(0.25, 3.0),
        candidate(0.9, 4.0, liked=False),
    ]
    verdicts = choose(candidates, Thresholds(), keep=2, alike=0.99)
    assert verdicts == ["near-duplicate", "kept", "kept", "direction", "enough", "judge"]


def drawn() -> DrawnPair:
    return DrawnPair(
        Rewrite("a dog", "make it a cat", "a cat"), PairSettings(0), scene(0), scene(1)
    )


def answer(following: Any, preservation: Any) -> str:
    texts = {"first_picture": "a dog", "second_picture": "a cat", "differences": "the animal"}
    scores = {"instruction_following": following, "preservation": preservation}
    return json.dumps(texts | scores)


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        (answer(8, 6.5), (8.0, 6.5)),
        (answer(8, 11), None),
        (answer(True, 5), None),
        (answer("8", 5), None),
        ("8 of 10", None),
        ({"role": "assistant", "content": None, "refusal": "no"}, None),
        (500, None),
    ],
)
def test_the_judge_sees_both_pictures_and_its_scores_are_read_strictly(
    reply: Any, scores: tuple[float, float] | None
) -> None:
    with chat_server(lambda *_: reply) as server:
        judge = PairJudge(ServerOptions(server.url, "toy", retries=0))
        (opinion,) = judge.judge([drawn()])
    assert opinion.scores == scores
    assert opinion.likes(6.0) == (scores is not None)
    assert not opinion.likes(9.0)
    content = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert "make it a cat" in content[0]["text"]
