"""Writers: what they answer is read strictly, counted by reason, and the same for the same seed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.chat_server import chat_server
from builders.language_models import toy_language_model
from builders.pairs import put

from customize.embedded.world.colors import PALETTE
from customize.errors import EndpointError, OutputError, PairsError, SynthesisError
from customize.scoring.judging.chat import FAILURES, ServerOptions
from customize.synthesis.writing.captions import read_captions
from customize.synthesis.writing.check import Checker
from customize.synthesis.writing.drawn_world import DrawnWorldWriter, drawn_captions, scene_of
from customize.synthesis.writing.endpoint import EndpointWriter
from customize.synthesis.writing.fit_writer import FitOptions, fit_writer, read_rows
from customize.synthesis.writing.local_model import open_local
from customize.synthesis.writing.read_answer import read_json_answer, read_line_answer
from customize.synthesis.writing.rewrite import Rejection, Rewrite

GOOD = json.dumps({"instruction": "make it a cat", "edited_caption": "a cat"})


def test_a_good_answer_is_read_bare_and_fenced() -> None:
    wanted = Rewrite("a dog", "make it a cat", "a cat")
    assert read_json_answer("a dog", GOOD) == wanted
    assert read_json_answer("a dog", f"```json\n{GOOD}\n```") == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no answer"),
        ("  \n", "no answer"),
        ("Sure! Here you go: make it a cat", "not as asked"),
        ("[1, 2]", "not as asked"),
        ('{"instruction": "make it a cat"}', "not as asked"),
        ('{"instruction": 3, "edited_caption": "a cat"}', "not as asked"),
        ('{"instruction": "x", "edited_caption": "a cat", "more": 1}', "not as asked"),
        ('{"instruction": " ", "edited_caption": "a cat"}', "not as asked"),
        ("[" * 100_000, "not as asked"),
        (GOOD + "x" * 10_000, "not as asked"),
    ],
)
def test_nonsense_is_rejected_by_its_reason(text: str, reason: str) -> None:
    answer = read_json_answer("a dog", text)
    assert isinstance(answer, Rejection)
    assert answer.reason == reason
    assert len(answer.found) <= 120


def test_lines_need_both_parts() -> None:
    assert isinstance(read_line_answer("a dog", " make it a cat"), Rejection)
    answer = read_line_answer("a dog", " make it\x07 a cat\nEdited caption:  a  cat\nCaption: b")
    assert answer == Rewrite("a dog", "make it a cat", "a cat")


def test_edits_that_change_nothing_repeat_or_are_too_long_are_rejected() -> None:
    checker = Checker(too_long=lambda text: len(text.split()) > 5, blocked=("gore",))

    def reason(instruction: str, edited: str) -> str | None:
        answer = checker.check(Rewrite("a dog", instruction, edited))
        return answer.reason if isinstance(answer, Rejection) else None

    assert reason("make it a cat", "a cat") is None
    assert reason("turn it into a cat", "A cat.") == "duplicate"
    assert reason("keep it", "A  dog!") == "unchanged"
    assert reason("say more", "a dog in a park in May") == "too long"
    assert reason("x" * 301, "a bird") == "too long"
    assert reason("add gore", "a bird") == "blocked word"
    assert reason("add Gregory", "a bird") is None


def test_the_grammar_reads_every_caption_that_it_draws_and_edits_it() -> None:
    captions = drawn_captions(300, 3)
    writer = DrawnWorldWriter()
    answers = writer.write(captions, range(300))
    edits = [answer for answer in answers if isinstance(answer, Rewrite)]
    assert len(edits) == 300
    assert answers == writer.write(captions, range(300))
    for edit in edits:
        assert edit.edited_caption != edit.caption
        words = {*edit.instruction.split()} & {*PALETTE}
        assert words <= {*f"{edit.caption} {edit.edited_caption}".split()}
    ends = ("background", "at night")
    plain = [edit for edit in edits if edit.edited_caption.endswith(ends)]
    read = [scene_of(edit.edited_caption, np.random.default_rng(0)) for edit in plain]
    assert len(read) > 100
    assert None not in read


def test_the_grammar_refuses_other_words() -> None:
    captions = ["a photo of Lisbon", "a red unicorn on a blue background", ""]
    answers = DrawnWorldWriter().write(captions, [0, 1, 2])
    assert [getattr(answer, "reason", "") for answer in answers] == ["unknown words"] * 3


def options(url: str, **changes: Any) -> ServerOptions:
    return ServerOptions(url, "toy", **{"retries": 2, "timeout": 2.0, "at_once": 4} | changes)


def test_an_endpoint_is_asked_for_each_caption_and_answers_in_order() -> None:
    def answering(body: dict[str, Any], _: int) -> str:
        caption = body["messages"][-1]["content"]
        return json.dumps({"instruction": "paint it", "edited_caption": f"{caption} painted"})

    captions = [f"a dog {n}" for n in range(9)]
    with chat_server(answering) as server:
        answers = EndpointWriter(options(server.url)).write(captions, range(9))
    assert answers == [Rewrite(c, "paint it", f"{c} painted") for c in captions]
    assert {body["seed"] for body in server.requests} == set(range(9))
    asked = server.requests[0]
    assert asked["response_format"]["json_schema"]["strict"] is True
    assert (asked["temperature"], asked["frequency_penalty"]) == (0.7, 0.1)


def test_errors_are_retried_and_what_is_left_of_them_counted() -> None:
    with chat_server(lambda _, n: (429, 500, GOOD)[min(n, 3) - 1]) as server:
        (answer,) = EndpointWriter(options(server.url, retries=3)).write(["a dog"], [0])
    assert answer == Rewrite("a dog", "make it a cat", "a cat")
    assert len(server.requests) == 3
    with chat_server(lambda *_: 500) as server:
        (answer,) = EndpointWriter(options(server.url, retries=0)).write(["a dog"], [0])
    assert isinstance(answer, Rejection)
    assert (answer.reason, "500" in answer.found) == ("no answer", True)


def test_slow_refusing_and_empty_servers_are_rejections() -> None:
    replies = {
        "slow": (1.5, GOOD),
        "refusing": {"role": "assistant", "content": None, "refusal": "I cannot"},
        "nonsense": "as an AI model ...",
        "empty": "",
    }
    with chat_server(lambda body, _: replies[body["messages"][-1]["content"]]) as server:
        writer = EndpointWriter(options(server.url, timeout=0.5, retries=0))
        answers = writer.write(list(replies), range(4))
    reasons = [getattr(answer, "reason", "good") for answer in answers]
    assert reasons == ["no answer", "refused", "not as asked", "no answer"]


def test_a_server_without_structured_output_is_asked_without() -> None:
    def answering(body: dict[str, Any], _: int) -> Any:
        return 400 if "response_format" in body else GOOD

    with chat_server(answering) as server:
        writer = EndpointWriter(options(server.url, at_once=1))
        answers = writer.write(["a dog", "a bird"], [0, 1])
    assert [type(answer) for answer in answers] == [Rewrite, Rewrite]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refuses the key"), (404, "no model"), (403, "refuses the key")]
)
def test_a_server_that_is_of_no_use_is_said_once(status: int, words: str) -> None:
    with chat_server(lambda *_: status) as server:
        writer = EndpointWriter(options(server.url))
        with pytest.raises(EndpointError, match=words):
            writer.write(["a dog"], [0])


def test_a_server_that_is_not_there_or_always_fails_is_given_up() -> None:
    with pytest.raises(EndpointError, match="repeat the command: it goes on"):
        EndpointWriter(options("http://127.0.0.1:9/v1", retries=0)).write(["a dog"], [0])
    with pytest.raises(EndpointError, match="no web address"):
        EndpointWriter(options("localhost:8000"))
    with chat_server(lambda *_: 500) as server:
        writer = EndpointWriter(options(server.url, retries=0))
        # threads that are under way count on, and any of theirs may be told
        told = "|".join(str(FAILURES + more) for more in range(4))
        with pytest.raises(EndpointError, match=rf"({told}) questions failed"):
            writer.write(["a dog"] * 30, range(30))


def test_captions_are_read_of_text_and_of_json_lines(tmp_path: Path) -> None:
    text = put(tmp_path / "a.txt", "a dog\n\n  a  cat \n")
    assert read_captions(text) == ["a dog", "a cat"]
    rows = put(tmp_path / "a.jsonl", '{"caption": "a dog"}\n{"caption": "a cat", "x": 1}\n')
    assert read_captions(rows) == ["a dog", "a cat"]
    bad = put(tmp_path / "b.jsonl", '{"caption": "a dog"}\n[1]\n{"caption": 3}\n')
    with pytest.raises(PairsError) as caught:
        read_captions(bad)
    assert [fault.place.rpartition(":")[2] for fault in caught.value.faults] == ["2", "3"]
    for name, content in (("c.txt", ""), ("d.txt", b"\xff\xfe\x00"), ("e.txt", "x" * 3000)):
        with pytest.raises(PairsError):
            read_captions(put(tmp_path / name, content))
    with pytest.raises(PairsError, match="no such file"):
        read_captions(tmp_path / "none.txt")
    odd = put(tmp_path / "odd.jsonl", '{"caption": "a dog\u2028by a tree"}\n')
    assert read_captions(odd) == ["a dog by a tree"]
    twice = put(tmp_path / "twice.jsonl", '{"caption": "a dog", "caption": "a cat"}\n')
    with pytest.raises(PairsError, match="given twice"):
        read_captions(twice)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(PairsError, match="a named pipe"):
        read_captions(tmp_path / "pipe.txt")


def test_a_writer_is_fitted_to_rows_and_then_writes_them(tmp_path: Path) -> None:
    model = toy_language_model(tmp_path / "model")
    rows = [
        {"caption": "a dog", "edit": "make it red", "edited_caption": "a red dog"},
        {"input": "a cat", "edit": "add snow", "output": "a cat in snow"},
    ]
    path = put(tmp_path / "rows.jsonl", "\n".join(json.dumps(row) for row in rows))
    read = read_rows(path)
    assert read == [
        Rewrite("a dog", "make it red", "a red dog"),
        Rewrite("a cat", "add snow", "a cat in snow"),
    ]
    options = FitOptions(epochs=60, batch=2, learning_rate=1e-2, rank=16)
    losses = fit_writer(read, str(model), tmp_path / "writer", options, progress=False)
    assert losses[-1] < 0.05 < losses[0]
    for made in (path for path in (tmp_path / "writer").iterdir() if path.is_file()):
        assert str(tmp_path).encode() not in made.read_bytes(), made.name
    before = open_local(str(model)).write(["a dog", "a cat"], [0, 1])
    fitted = open_local(str(model), tmp_path / "writer")
    assert fitted.write(["a dog", "a cat"], [0, 1]) == read
    assert before != read
    assert "writer" in fitted.name
    (tmp_path / "writer" / "notes.txt").write_text("mine")
    short = FitOptions(epochs=1, batch=2)
    fit_writer(read, str(model), tmp_path / "writer", short, overwrite=True, progress=False)
    left = {path.name for path in (tmp_path / "writer").iterdir()}
    assert left >= {"notes.txt", "adapter_model.safetensors"}
    for place in (model, model / "writer"):
        with pytest.raises(OutputError, match="the model"):
            fit_writer(read, str(model), place, short, overwrite=True, progress=False)


def test_a_local_model_writes_the_same_for_the_same_seed(tmp_path: Path) -> None:
    writer = open_local(str(toy_language_model(tmp_path)))
    first = writer.write(["a dog", "a cat and a bird"], [5, 6])
    assert writer.write(["a dog", "a cat and a bird"], [5, 6]) == first
    assert all(isinstance(answer, Rejection) for answer in first)  # it knows no English


def test_faults_of_models_and_rows_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="causal language model"):
        open_local(str(tmp_path))
    model = toy_language_model(tmp_path / "model")
    with pytest.raises(SynthesisError, match="fit-writer"):
        open_local(str(model), tmp_path)
    bad = put(tmp_path / "bad.jsonl", '{"caption": "a dog", "edit": "x"}\nnot json\n')
    with pytest.raises(PairsError) as caught:
        read_rows(bad)
    found = [fault.found for fault in caught.value.faults]
    assert found[0] == "no edited caption"
    assert found[1].startswith("not JSON")
