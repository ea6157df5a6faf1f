"""Pairs from finished pictures alone: sources that keep structure and lose the look."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.pairs import put
from PIL import Image

from customize.editing import Editor
from customize.embedded.world.concepts import concept_pairs
from customize.errors import CustomizeError, OutputExistsError, PairsError, SynthesisError
from customize.pairs.find import find_pairs
from customize.scoring.networks.encoders import open_clip
from customize.synthesis.backward import make
from customize.synthesis.backward.candidates import SourceScores, best, look_gone, structure
from customize.synthesis.backward.make import BackwardOptions, make_backward

BRAND = concept_pairs("brand_style", 6)


def plain(number: int) -> Image.Image:
    return Image.fromarray(BRAND[number].source_HWC)


def branded(number: int) -> Image.Image:
    return Image.fromarray(BRAND[number].target_HWC)


def test_structure_is_the_same_through_a_change_of_colors_and_not_of_pictures() -> None:
    for number in range(6):
        assert structure(plain(number), plain(number)) == pytest.approx(1)
        recolored = Image.fromarray(np.asarray(plain(number))[..., [2, 0, 1]])
        assert structure(plain(number), recolored) > 0.6
        assert structure(plain(number), plain((number + 1) % 6)) < 0.5
    blank = Image.new("RGB", (64, 64))
    assert structure(blank, blank) == 0


def test_the_true_sources_have_lost_the_look_and_copies_have_not() -> None:
    clip = open_clip()
    finished = clip.image_BD([branded(n) for n in range(6)])
    for number in range(6):
        vectors = clip.image_BD([plain(number), branded(number), branded((number + 1) % 6)])
        source, copy, _ = look_gone(finished, number, vectors)
        assert copy == pytest.approx(0, abs=1e-6)
        assert source > 0.02
    alone = look_gone(finished[:1], 0, finished[:1])
    assert alone == pytest.approx([0], abs=1e-6)


def test_the_best_sources_keep_structure_and_lose_the_look() -> None:
    scores = [
        SourceScores(0.9, 0.01),  # a copy
        SourceScores(0.9, 0.10),
        SourceScores(0.1, 0.50),  # another picture
        SourceScores(0.8, 0.20),
        SourceScores(0.7, 0.05),
    ]
    assert best(scores, 2, 0.3, 0.02) == [3, 1]
    assert best(scores, 9, 0.3, 0.02) == [3, 1, 4]
    assert best(scores[:1], 9, 0.3, 0.02) == []


def same_pixels(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


class UndoingEditor:
    """Stands in for a base that can undo a look: every third answer is good, others are not."""

    def __init__(self, editor: Editor) -> None:
        self.base, self.calls = editor.base, list[Any]()

    def batch(self, images: Any, instructions: Any, *, seed: int, detail: str) -> list[Any]:
        assert detail == "scaled"
        self.calls.append((tuple(instructions), seed))
        (number,) = {n for n in range(6) if same_pixels(images[0], branded(n))}
        answers = [plain(number), branded(number), plain((number + 1) % 6)]
        return [type("Edited", (), {"image": answers[n % 3]}) for n in range(len(images))]


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.from_base("embedded", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        put(tmp_path / "finished" / f"{number}.png", branded(number))
    return tmp_path / "finished"


OPTIONS = BackwardOptions("give it the brand style", candidates=6, keep=1, least_gone=0.02)


def test_pairs_are_written_the_right_way_round(editor: Editor, folder: Path) -> None:
    undoing: Any = UndoingEditor(editor)
    out = folder.parent / "out"
    made = make_backward(undoing, open_clip(), folder, out, OPTIONS, progress=False)
    assert (made.kept, made.pictures, made.without) == (6, 6, ())
    pairs = find_pairs(out / "pairs.jsonl").pairs
    for number, pair in enumerate(pairs):
        assert pair.instruction == "give it the brand style"
        inside = (10, 10, 54, 54)  # the frame that all finished pictures have is mended
        assert same_pixels(Image.open(pair.source).crop(inside), plain(number).crop(inside))
        assert same_pixels(Image.open(pair.target), branded(number))
    provenance = [json.loads(line) for line in (out / "provenance.jsonl").open()]
    assert {row["asked"] for row in provenance} == {make.AWAY[0]}
    seeds = [seed for _, seed in undoing.calls]
    assert seeds == [0, 6, 12, 18, 24, 30]


def test_a_source_is_recolored_as_often_as_asked(editor: Editor, folder: Path) -> None:
    undoing: Any = UndoingEditor(editor)
    out, options = folder.parent / "out", replace(OPTIONS, recolored=2)
    made = make_backward(undoing, open_clip(), folder, out, options, progress=False)
    assert made.kept == 18
    pairs = find_pairs(out / "pairs.jsonl").pairs
    assert len({pair.source.read_bytes() for pair in pairs}) == 18
    assert len({pair.target for pair in pairs}) == 6
    provenance = [json.loads(line) for line in (out / "provenance.jsonl").open()]
    assert [row["recolored"] for row in provenance[:4]] == [0, 1, 2, 0]


def test_stopped_it_goes_on_without_asking_again(editor: Editor, folder: Path) -> None:
    undoing: Any = UndoingEditor(editor)
    clip, out = open_clip(), folder.parent / "out"
    whole = make_backward(undoing, clip, folder, folder.parent / "whole", OPTIONS, progress=False)
    unbroken, ask = undoing.batch, {"left": 3}

    def dying(*arguments: Any, **options: Any) -> Any:
        ask["left"] -= 1
        if ask["left"] < 0:
            raise KeyboardInterrupt
        return unbroken(*arguments, **options)

    undoing.batch = dying
    with pytest.raises(KeyboardInterrupt):
        make_backward(undoing, clip, folder, out, OPTIONS, progress=False)
    undoing.batch, undoing.calls = unbroken, []
    again = make_backward(undoing, clip, folder, out, OPTIONS, progress=False)
    assert len(undoing.calls) == 3
    assert again.pairs.read_bytes() == whole.pairs.read_bytes()
    changed = BackwardOptions("another", candidates=6)
    with pytest.raises(OutputExistsError):
        make_backward(undoing, clip, folder, out, changed, progress=False)


def test_the_embedded_base_is_asked_and_a_look_it_cannot_undo_is_said(
    editor: Editor, folder: Path
) -> None:
    options = BackwardOptions("give it the brand style", candidates=1, least_gone=2.0)
    with pytest.raises(SynthesisError, match="no source was good enough for any of 6"):
        make_backward(editor, open_clip(), folder, folder.parent / "out", options, progress=False)
    assert len((folder.parent / "out" / "samples.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("fault", ["missing", "empty", "damaged", "wordless"])
def test_faults_of_folders_are_one_message(editor: Editor, folder: Path, fault: str) -> None:
    options = OPTIONS
    match fault:
        case "missing":
            folder = folder / "none"
        case "empty":
            folder = folder.parent / "empty"
            folder.mkdir()
        case "damaged":
            put(folder / "9.png", b"not a picture")
        case "wordless":
            options = BackwardOptions(" ")
    with pytest.raises(CustomizeError) as caught:
        make_backward(editor, open_clip(), folder, folder.parent / "out", options, progress=False)
    assert isinstance(caught.value, PairsError | SynthesisError)
    assert not (folder.parent / "out").exists()
