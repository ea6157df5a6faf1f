"""Widening: joint changes that keep an edit true, wordings that say the same, and new sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.chat_server import chat_server
from builders.pairs import pair, put
from PIL import Image

from customize.cli.main import main
from customize.embedded.world.concepts import concept_pairs
from customize.errors import SynthesisError
from customize.pairs.find import find_pairs
from customize.pairs.joint_changes import JointChange, draw_change, may_mirror
from customize.scoring.judging.chat import Chat, ServerOptions
from customize.scoring.networks.encoders import open_clip
from customize.shapes import Pair
from customize.synthesis.widening.make import NewSources, WidenOptions, widen
from customize.synthesis.widening.reword import by_patterns, usable

DOG = concept_pairs("my_dog", 4)
BRAND = concept_pairs("brand_style", 2)
MARK = concept_pairs("my_mark", 4)


def pictures(edit: Any) -> tuple[Image.Image, Image.Image]:
    return Image.fromarray(edit.source_HWC), Image.fromarray(edit.target_HWC)


def changed(source: Image.Image, target: Image.Image) -> np.ndarray:
    one, other = (np.asarray(picture).astype(int) for picture in (source, target))
    return np.abs(one - other).max(axis=-1) > 10


@pytest.mark.parametrize("edit", [*DOG, *MARK])
def test_what_changed_stays_in_the_picture(edit: Any) -> None:
    source, target = pictures(edit)
    before, crops = changed(source, target).sum(), 0
    for seed in range(20):
        change = draw_change(source, target, edit.instruction, np.random.default_rng(seed))
        assert change == draw_change(source, target, edit.instruction, np.random.default_rng(seed))
        crops += change.box != (0, 0, 1, 1)
        left, top, right, bottom = change.box
        scale = (right - left) * (bottom - top)
        after = changed(change.apply(source), change.apply(target)).sum()
        assert after * scale > 0.85 * before
    assert crops > 0


def test_a_pair_that_changes_everywhere_keeps_its_frame() -> None:
    for edit in BRAND:
        source, target = pictures(edit)
        for seed in range(10):
            change = draw_change(source, target, edit.instruction, np.random.default_rng(seed))
            assert change.box == (0, 0, 1, 1)


def test_sides_and_lettering_are_never_mirrored() -> None:
    assert may_mirror("turn the dog into <my-dog>")
    assert not may_mirror("add a ball on the left")
    assert not may_mirror("put our Logo on it")
    source, _ = pictures(DOG[0])
    mirrored = JointChange(mirrored=True).apply(source)
    assert np.array_equal(np.asarray(mirrored)[:, ::-1], np.asarray(source))


def test_wordings_say_the_same_of_the_same_words() -> None:
    for instruction in ("turn the dog into <my-dog>", "replace the dog with <my-dog>"):
        wordings = by_patterns(instruction)
        assert wordings[0] == instruction
        assert len({*wordings}) == len(wordings) >= 4
        assert all("dog" in text and text.count("<my-dog>") == 1 for text in wordings)
    assert "show it in the brand style" in by_patterns("give it the brand style")
    assert by_patterns("put <my-mark> on it")[1:] == [
        "add <my-mark> to it",
        "place <my-mark> on it",
    ]
    assert by_patterns("do something odd") == ["do something odd"]
    answer = ["swap the dog for <my-dog>", "swap the dog", 3, "x" * 500, "see <my-dog> <my-dog>"]
    assert usable("turn the dog into <my-dog>", answer) == [
        "turn the dog into <my-dog>",
        "swap the dog for <my-dog>",
    ]
    assert usable("a", None) == ["a"]


@pytest.fixture
def dogs(tmp_path: Path) -> list[Pair]:
    return [pair(tmp_path / "real", *pictures(edit), edit.instruction) for edit in DOG]


def test_four_pairs_become_forty_kept_apart_and_weighted(dogs: list[Pair], tmp_path: Path) -> None:
    made = widen(dogs, tmp_path / "wide", WidenOptions(count=40, weight=0.5), progress=False)
    assert (made.changed, made.new) == (40, 0)
    pairs = find_pairs(tmp_path / "wide" / "pairs.jsonl").pairs
    assert len(pairs) == 40
    assert {p.weight for p in pairs} == {0.5}
    assert len({p.instruction for p in pairs}) >= 4
    assert len({p.source.read_bytes() for p in pairs}) > 30
    assert {p.source for p in pairs}.isdisjoint(p.source for p in dogs)
    again = widen(dogs, tmp_path / "again", WidenOptions(count=40, weight=0.5), progress=False)
    assert again.pairs.read_bytes() == made.pairs.read_bytes()


def test_a_server_rewords_once(dogs: list[Pair], tmp_path: Path) -> None:
    def answering(body: dict[str, Any], _: int) -> str:
        asked = body["messages"][-1]["content"]
        return json.dumps({"wordings": [f"please {asked}", "lose the word"]})

    options = WidenOptions(count=12)
    with chat_server(answering) as server:
        chat = Chat(ServerOptions(server.url, "toy", retries=0))
        made = widen(dogs, tmp_path / "wide", options, chat=chat, progress=False)
        widen(dogs, tmp_path / "wide", options, chat=chat, progress=False)
    assert len(server.requests) == 4
    texts = {p.instruction for p in find_pairs(made.pairs).pairs}
    assert any(text.startswith("please ") for text in texts)
    assert "lose the word" not in texts


class KnowingEditor:
    """Stands in for an adapter that knows the dog: true targets for some sources, copies else."""

    def __init__(self, answers: dict[bytes, Image.Image]) -> None:
        self._answers = answers
        self.base = type("Base", (), {"fingerprint": "0" * 64, "folder": Path("no base")})

    def settings(self, *_: Any) -> Any:
        return type("Settings", (), {"adapters": ()})

    def batch(self, images: Any, instructions: Any, *, seed: int) -> list[Any]:
        del seed
        answers = [self._answers.get(image.tobytes(), image) for image in images]
        assert len(answers) == len(instructions)
        return [type("Edited", (), {"image": answer}) for answer in answers]


def test_new_sources_whose_edit_shows_the_concept_are_kept(
    dogs: list[Pair], tmp_path: Path
) -> None:
    unseen = concept_pairs("my_dog", 6, test=True)
    files = [put(tmp_path / "new" / f"{n}.png", pictures(edit)[0]) for n, edit in enumerate(unseen)]
    known = {edit.source_HWC.tobytes(): pictures(edit)[1] for edit in unseen[:4]}
    editor: Any = KnowingEditor(known)
    new = NewSources(editor, files, open_clip())
    options = WidenOptions(count=10, candidates=2, least_gained=0.001)
    made = widen(dogs, tmp_path / "wide", options, new=new, progress=False)
    assert made.new >= 2
    assert made.new + made.failed == 6
    assert made.failed >= 2  # copies gain nothing
    assert made.changed == 10 - made.new
    rows = [json.loads(line) for line in (tmp_path / "wide" / "provenance.jsonl").open()]
    assert [row["name"].split("_")[0] for row in rows] == ["new"] * made.new + ["changed"] * (
        10 - made.new
    )
    again = widen(dogs, tmp_path / "wide", options, new=new, progress=False)
    assert again == made


def test_the_command_widens_and_refuses_half_requests(
    dogs: list[Pair], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"source": p.source.name, "instruction": p.instruction, "edited": p.target.name}
        for p in dogs
    ]
    put(tmp_path / "real" / "pairs.jsonl", "\n".join(map(json.dumps, rows)))
    out = str(tmp_path / "out")
    words = ["synthesize", "widen", str(tmp_path / "real" / "pairs.jsonl"), "-o", out]
    assert main([*words, "--to", "8"]) == 0
    assert "8 pairs changed jointly" in capsys.readouterr().out
    assert main([*words, "--to", "8", "--server", "http://x"]) == 2
    assert "--server and --model go together" in capsys.readouterr().err
    assert main([*words, "--to", "0"]) == 2
    assert main([*words, "--to", "9"]) == 2  # another widening is there
    with pytest.raises(SynthesisError):
        widen([], tmp_path / "none", WidenOptions(), progress=False)
