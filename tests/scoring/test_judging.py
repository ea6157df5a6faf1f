"""Judges: asked thrice, read strictly, remembered, and able to fill a folder of choices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.chat_server import chat_server
from builders.pairs import scene
from PIL import Image

from customize.cli.main import main
from customize.embedded.world.edits import random_edit
from customize.errors import ScoreError
from customize.scoring import Item, open_models, score_edits
from customize.scoring.choices.read import read_choices
from customize.scoring.judging.chat import ServerOptions
from customize.scoring.judging.clip import ClipJudge
from customize.scoring.judging.open_judge import open_judge
from customize.scoring.judging.opinion import JudgedEdit
from customize.scoring.judging.vision_model import VisionJudge
from customize.scoring.networks.encoders import open_clip


def answer(follows: float, keeps: float) -> str:
    texts = dict.fromkeys(("first_picture", "second_picture", "differences"), "things")
    return json.dumps({**texts, "instruction_following": follows, "preservation": keeps})


def item(seed: int) -> Item:
    return Item(scene(seed), "make it red", scene(seed + 1))


def test_a_vision_model_is_asked_thrice_and_the_median_counts() -> None:
    scores = {0: (2, 9), 1: (8, 5), 2: (7, 6)}
    with chat_server(lambda body, _: answer(*scores[body["seed"]])) as server:
        judge = VisionJudge(ServerOptions(server.url, "toy", retries=0))
        (opinion,) = judge.opinions([JudgedEdit(scene(0), "make it red", scene(1))])
    assert opinion.scores == (7.0, 6.0)
    assert sorted(body["seed"] for body in server.requests) == [0, 1, 2]


def test_scores_by_a_judge_are_kept_and_what_fails_is_said(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], _: int) -> Any:
        told = body["messages"][0]["content"][0]["text"]
        return "7 of 10" if "blue" in told else answer(9, 4)

    items = [item(0), item(2), replace(item(4), instruction="make it blue")]
    models = open_models(None, cache=tmp_path / "cache.sqlite")
    with chat_server(reply) as server:
        judge = VisionJudge(ServerOptions(server.url, "toy", retries=0))
        asked = replace(models, judge=judge)
        first = score_edits(items, asked, ["judge_follows", "judge_keeps"])
        assert first.values("judge_follows") == [9.0, 9.0]
        assert first.values("judge_keeps") == [4.0, 4.0]
        assert (
            "left out for 1 of 3 edits: the judge gave no scores (not as asked)" in first.notes[0]
        )
        seen = len(server.requests)
        assert score_edits(items[:2], asked).rows == tuple(
            {"judge_follows": 9.0, "judge_keeps": 4.0} for _ in range(2)
        )
        assert len(server.requests) == seen == 9
    assert "judge_follows" not in score_edits(items, models).metrics()


def test_the_embedded_judge_prefers_what_was_asked_for() -> None:
    judge = ClipJudge(open_clip("embedded"))
    edits = [random_edit((7, i), test=True, kind="recolor") for i in range(12)]
    pictures = [(Image.fromarray(e.source_HWC), Image.fromarray(e.target_HWC)) for e in edits]
    made = [JudgedEdit(s, e.instruction, t) for (s, t), e in zip(pictures, edits, strict=True)]
    left = [JudgedEdit(s, e.instruction, s) for (s, _), e in zip(pictures, edits, strict=True)]
    follows = [o.scores[0] for o in judge.opinions(made) if o.scores]
    copies = [o.scores for o in judge.opinions(left) if o.scores]
    assert sum(follows) / 12 > 1.0
    assert all(scores[0] == 0 and scores[1] > 9.99 for scores in copies)


def test_a_judge_fills_a_folder_of_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "choices"
    words = ["choose", "embedded", "--count", "2", "--steps", "2", "-o", str(folder)]
    assert main(words) == 0
    assert "2 choices by CLIP embedded" in capsys.readouterr().out
    choices = read_choices(folder)
    assert all(choice.by == "judge CLIP embedded" for choice in choices)
    seeds = [(c.first.settings.seed, c.second.settings.seed) for c in choices]
    assert seeds == [(0, 2), (3, 1)], "one base alone is chosen between by its seeds"
    assert main([*words, "--judge-server", "http://127.0.0.1:9/v1"]) == 2
    assert "no model of it is named" in capsys.readouterr().err


def test_a_servers_judge_needs_a_models_name() -> None:
    with pytest.raises(ScoreError, match="expected the name of one of the server's models"):
        open_judge("embedded", "http://127.0.0.1:9/v1")
