"""Sweeps over guidance: the rule that chooses, points that are kept, and the commands around."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import toy_base
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_scoring_inputs import adapter, pairs_folder, picture, table

from customize import cli
from customize.editing import Editor
from customize.errors import EditError, ScoreError
from customize.families.sampling import PAPER, Sampling
from customize.scoring import tradeoff as tradeoff_module
from customize.scoring.sweep import Point
from customize.scoring.tradeoff import read_points
from customize.scoring.tuning import TOLERANCE, choose, usual_guidances

SIMILARITY = st.floats(-1, 1)


def point(direction: float, image: float, text: float = 7.5, guidance: float = 1.5) -> Point:
    return Point(text, guidance, direction, image, None, None, 1, "captions")


def test_of_nearly_equal_edits_the_one_that_keeps_most_is_chosen() -> None:
    points = [point(0.30, 0.5), point(0.295, 0.8), point(0.2, 0.95)]
    choice = choose(points)
    assert choice.chosen is points[1]
    assert "98.3% of the furthest way" in choice.reason
    assert "of the 2 that go at least 97% it keeps most" in choice.reason
    assert choice.table().count("chosen") == 1


def test_a_floor_leaves_out_what_keeps_too_little() -> None:
    points = [point(0.30, 0.5), point(0.2, 0.8), point(0.1, 0.9)]
    assert choose(points, floor=0.75).chosen is points[1]
    choice = choose(points, floor=0.99)
    assert choice.chosen is points[2]
    assert "no setting keeps 0.99" in choice.reason


def test_where_no_setting_goes_the_right_way_it_is_said() -> None:
    choice = choose([point(-0.2, 0.9), point(-0.1, 0.1)])
    assert choice.chosen.direction == -0.1
    assert "no setting goes the way" in choice.reason
    with pytest.raises(ScoreError, match="no guidances"):
        choose([])


@given(st.lists(st.tuples(SIMILARITY, SIMILARITY), min_size=1, max_size=12))
def test_laws_of_the_choice(numbers: list[tuple[float, float]]) -> None:
    points = [point(*pair) for pair in numbers]
    chosen = choose(points).chosen
    best = max(each.direction for each in points)
    assert chosen in points
    if best > 0:
        assert chosen.direction >= (1 - TOLERANCE) * best
        near = [each for each in points if each.direction >= (1 - TOLERANCE) * best]
        assert chosen.image == max(each.image for each in near)
    again = choose(points[::-1]).chosen
    assert (again.direction, again.image) == (chosen.direction, chosen.image)


def test_usual_guidances_lie_around_the_bases_own() -> None:
    assert usual_guidances(PAPER) == ([4.9, 7.5, 10.1], (1.0, 1.2, 1.5, 1.8))
    texts, images = usual_guidances(Sampling(12, 1.5, 1.3))
    assert texts == [1.3, 1.5, 1.7]
    assert 1.3 in images


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_base(tmp_path_factory.mktemp("toy")))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> Callable[..., int]:
    """Run a command beside two pairs, on the toy base, judged by the small CLIP."""
    monkeypatch.chdir(tmp_path)
    pairs_folder(Path("pairs"), ["make the dog red", "add the hat"])

    def command(*words: str, toy: bool = True) -> int:
        quick = ["--steps", "1", "--clip", "embedded", "--device", "cpu"]
        return cli.main([*words, *(["--base", base, *quick] if toy else [])])

    return command


def test_the_editor_makes_a_batch_as_it_makes_single_edits(base: str, tmp_path: Path) -> None:
    editor = Editor.from_base(base, device="cpu")
    paths = [picture(tmp_path / f"{n}.png", n, side) for n, side in enumerate((32, 32, 48, 32))]
    texts = ["make it red", "add the hat", "paint it blue", "make it night"]
    made = editor.batch(paths, texts, at_once=2, steps=2, seed=5)
    assert len(made) == 4
    for index, (path, text, one) in enumerate(zip(paths, texts, made, strict=True)):
        alone = editor.edit(path, text, steps=2, seed=5 + index)
        assert one.settings == alone.settings
        assert one.image.size == alone.image.size
        difference = zip(one.image.tobytes(), alone.image.tobytes(), strict=True)
        assert max(abs(a - b) for a, b in difference) <= 1
    with pytest.raises(EditError, match="no instruction"):
        editor.batch(paths, ["", "x", "x", "x"])


class _Pictures(HTMLParser):
    """Counts a page's pictures and whatever it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.fetched = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src") or dict(attrs).get("href") or ""
        self.held += source.startswith("data:image/")
        self.fetched += bool(source) and not source.startswith("data:")


def test_score_writes_table_json_and_report_and_repeats_nothing(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("score", "pairs", "-o", "out") == 0
    printed = capsys.readouterr().out
    assert "CLIP direction" in printed
    assert "dino_concept is left out: no DINO was named" in printed
    result = json.loads(Path("out/scores.json").read_text())
    [variant] = result["variants"]
    assert [edit["instruction"] for edit in variant["edits"]] == ["make the dog red", "add the hat"]
    assert all(Path("out", edit["output"]).is_file() for edit in variant["edits"])
    page = _Pictures()
    page.feed(Path("out/report.html").read_text())
    assert (page.held, page.fetched) == (6, 0)

    assert run("score", "pairs", "-o", "out") == 2
    assert "out/scores.json: it is there already" in capsys.readouterr().err
    monkeypatch.setattr(Editor, "from_base", lambda *_, **__: pytest.fail("made again"))
    assert run("score", "pairs", "-o", "out", "--overwrite") == 0
    again = json.loads(Path("out/scores.json").read_text())
    assert again["variants"][0]["means"] == variant["means"]


def test_score_finished_edits(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    row = {"source": "0_a.png", "instruction": "x", "output": "0_b.png"}
    table(Path("pairs"), row)
    assert run("score", "pairs", "--metrics", "clip_image", "--device", "cpu", toy=False) == 0
    assert Path("runs/scores_pairs/report.html").is_file()
    capsys.readouterr()
    assert run("score", "pairs", "-o", "x", "--metrics", "psnr", toy=False) == 2
    assert "'psnr' was asked for and no edit has it: it needs a target" in capsys.readouterr().err
    assert run("score", "pairs", "-o", "y", "--metrics", "clip_img", toy=False) == 2
    assert "did you mean 'clip_image'" in capsys.readouterr().err
    assert run("score", "pairs", "-o", "z", "--steps", "3", toy=False) == 2
    assert "these edits are finished, so steps would have no effect" in capsys.readouterr().err
    assert not Path("y").exists()
    assert not Path("z").exists()


def test_a_tradeoff_goes_on_where_it_stopped(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, measured = tradeoff_module.measure, list[float]()

    def counted(*arguments: object, **options: object) -> Point:
        image = arguments[4]
        assert isinstance(image, float)
        if image == 1.6 and not measured.count(1.6):
            measured.append(image)
            raise KeyboardInterrupt
        measured.append(image)
        return measure(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tradeoff_module, "measure", counted)
    words = ("score", "tradeoff", "pairs", "--image-guidance", "1", "1.6")
    assert run(*words) == 130
    assert len(read_points(Path("tradeoff.json"))) == 1
    assert run(*words) == 0
    assert measured == [1.0, 1.6, 1.6]
    for name, start in (("tradeoff.png", b"\x89PNG"), ("tradeoff.svg", b"<?xml")):
        assert Path(name).read_bytes().startswith(start)
    with Image.open("tradeoff.png") as image:
        assert min(image.size) > 600
    assert "image kept" in capsys.readouterr().out
    assert run(*words) == 2
    assert "tradeoff.png: it is there already" in capsys.readouterr().err
    assert run(*words, "2", "--overwrite") == 0
    assert measured == [1.0, 1.6, 1.6, 2.0]
    Path("tradeoff.json").write_text("{}")
    assert run(*words, "--overwrite") == 2
    assert "it holds no points to go on from" in capsys.readouterr().err


def test_tune_guidance_of_a_set_and_of_one_picture(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("--text-guidance", "5", "7.5", "--image-guidance", "1", "1.5")
    assert run("tune-guidance", "pairs", *sweep, "-o", "sweep.json") == 0
    assert "against the captions" in capsys.readouterr().out
    kept = json.loads(Path("sweep.json").read_text())
    assert len(kept["points"]) == 4
    assert kept["chosen"] in kept["points"]
    assert run("tune-guidance", "pairs/0_a.png", "make it red", *sweep) == 0
    assert "against the instructions" in capsys.readouterr().out
    captions = ("--captions", "a dog", "a red dog")
    assert run("tune-guidance", "pairs/0_a.png", "make it red", *captions, *sweep) == 0
    assert "against the captions" in capsys.readouterr().out
    assert run("tune-guidance", "pairs", *captions, *sweep) == 2
    assert "--captions: they are of one picture" in capsys.readouterr().err


def test_edit_with_chosen_guidance(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("edit", "pairs/0_a.png", "make it red", "--guidance", "auto")
    assert run(*words, "--image-guidance", "1.2", "-o", "a.png") == 0
    printed = capsys.readouterr().out
    assert printed.count(" 1.2 ") >= 3, "the guidance given stays, the other is swept"
    assert "chosen" in printed
    both = ("--image-guidance", "1.2", "--text-guidance", "7")
    assert run(*words, *both, "-o", "b.png") == 2
    assert "nothing to choose" in capsys.readouterr().err
    assert run("edit", "pairs/0_a.png", "a", "b", "--guidance", "auto", "-o", "b.png") == 2
    assert "expected one instruction" in capsys.readouterr().err
    assert run("edit", "pairs/0_a.png", "a", "-o", "b.png") == 2
    assert "--clip judges what --guidance auto tries" in capsys.readouterr().err
    assert not Path("b.png").exists()


def test_adapters_of_other_bases_are_named(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    adapter(Path("dog.safetensors"))
    assert run("score", "pairs", "-a", "missing.safetensors") == 2
    assert "missing.safetensors: there is no such file" in capsys.readouterr().err
