"""Sweeps over guidance: the rule that chooses, points that are kept, and the commands around."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import TEXT_WIDTH, toy_base, toy_header
from builders.scores import adapter, pairs_folder, picture, table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customize.adapters.file import save_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.drawing.escape import markdown
from customize.editing import Editor
from customize.editing.edited_picture import read_settings
from customize.errors import BaseModelError, EditError, ScoreError
from customize.families.base import resolve_base
from customize.families.sampling_defaults import Sampling
from customize.scoring import html_report
from customize.scoring.edits import make
from customize.scoring.edits.tasks import EditTask
from customize.scoring.guidance import tradeoff as tradeoff_module
from customize.scoring.guidance.sweep import Point
from customize.scoring.guidance.tradeoff import read_points
from customize.scoring.guidance.tune import TOLERANCE, choose_guidance, usual_guidances
from customize.scoring.items import METRICS
from customize.scoring.networks import encoders

SIMILARITY = st.floats(-1, 1)


def point(direction: float, image: float, text: float = 7.5, guidance: float = 1.5) -> Point:
    return Point(text, guidance, direction, image, None, None, 1, "captions")


def test_of_nearly_equal_edits_the_one_that_keeps_most_is_chosen() -> None:
    points = [point(0.30, 0.5), point(0.298, 0.8), point(0.2, 0.95)]
    choice = choose_guidance(points)
    assert choice.chosen is points[1]
    assert "99.3% of the furthest way" in choice.reason
    assert "of the 2 that go at least 99% it keeps most" in choice.reason
    assert choice.table().count("chosen") == 1


def test_a_floor_leaves_out_what_keeps_too_little() -> None:
    points = [point(0.30, 0.5), point(0.2, 0.8), point(0.1, 0.9)]
    assert choose_guidance(points, floor=0.75).chosen is points[1]
    choice = choose_guidance(points, floor=0.99)
    assert choice.chosen is points[2]
    assert "no setting keeps 0.99" in choice.reason


def test_where_no_setting_goes_the_right_way_it_is_said() -> None:
    choice = choose_guidance([point(-0.2, 0.9), point(-0.1, 0.1)])
    assert choice.chosen.direction == -0.1
    assert "no setting goes the way" in choice.reason
    with pytest.raises(ScoreError, match="no guidances"):
        choose_guidance([])


def test_where_scores_cannot_choose_the_bases_own_setting_is_kept() -> None:
    own = Sampling(12, 1.5, 1.2)
    wrong = [point(-0.2, 0.9), point(-0.3, 0.5, own.text_guidance, own.image_guidance)]
    equal = [point(0.300, 0.9), point(0.296, 0.5, own.text_guidance, own.image_guidance)]
    for points, why in ((wrong, "no setting goes the way"), (equal, "all go equally far")):
        choice = choose_guidance(points, own=own)
        assert choice.chosen is points[1]
        assert why in choice.reason
        assert "the base's own setting is kept" in choice.reason
    told_apart = [*equal, point(0.2, 0.95)]
    assert choose_guidance(told_apart, own=own).chosen is told_apart[0]
    assert choose_guidance(wrong[:1], own=own).chosen is wrong[0]
    assert choose_guidance(wrong, floor=0.8, own=own).chosen is wrong[0]


@given(st.lists(st.tuples(SIMILARITY, SIMILARITY), min_size=1, max_size=12))
def test_laws_of_the_choice(numbers: list[tuple[float, float]]) -> None:
    points = [point(*pair) for pair in numbers]
    chosen = choose_guidance(points).chosen
    best = max(each.direction for each in points)
    assert chosen in points
    if best > 0:
        assert chosen.direction >= (1 - TOLERANCE) * best
        near = [each for each in points if each.direction >= (1 - TOLERANCE) * best]
        assert chosen.image == max(each.image for each in near)
    again = choose_guidance(points[::-1]).chosen
    assert (again.direction, again.image) == (chosen.direction, chosen.image)


def test_usual_guidances_lie_around_the_bases_own() -> None:
    assert usual_guidances(Sampling(100, 7.5, 1.5)) == ([4.9, 7.5, 10.1], (1.0, 1.2, 1.5, 1.8))
    texts, images = usual_guidances(Sampling(12, 1.5, 1.3))
    assert texts == [1.3, 1.5, 1.7]
    assert 1.3 in images


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_base(tmp_path_factory.mktemp("toy")))


def toy_adapter(name: str, base: str) -> str:
    """Write an adapter of the toy base that knows one word."""
    word, path = f"<my-{name}>", Path(f"{name}.safetensors")
    taught = Taught(name, word, "dog", 1, (f"paint {word} red",))
    weights = resolve_base(base).fingerprint
    header = toy_header(base_name=base, base_fingerprint=weights, concepts=(taught,))
    seed = torch.Generator().manual_seed(len(name))
    vectors = torch.randn(1, TEXT_WIDTH, generator=seed) * (1 if name == "dog" else 2)
    save_adapter(path, header, {f"words.text_encoder.{word}": vectors})
    return str(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> Callable[..., int]:
    """Run a command beside two pairs, on the toy base, judged by the small CLIP."""
    monkeypatch.chdir(tmp_path)
    pairs_folder(Path("pairs"), ["make the dog red", "add the hat"])

    def command(*words: str, toy: bool = True) -> int:
        quick = ["--steps", "1", "--clip", "embedded", "--device", "cpu"]
        return main([*words, *(["--base", base, *quick] if toy else [])])

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


def test_a_base_that_breaks_leaves_nothing_behind(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Editor:
        raise BaseModelError("base 'toy': its unet is damaged", "download it again")

    monkeypatch.setattr(Editor, "from_base", broken)
    assert run("score", "pairs", "-o", "new/out") == 2
    assert "its unet is damaged" in capsys.readouterr().err
    assert not Path("new").exists()
    Path("mine").mkdir()
    Path("mine", "notes.txt").write_text("keep")
    assert run("score", "pairs", "-o", "mine") == 2
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_a_score_goes_on_where_it_stopped(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, made = make._make, list[str]()

    def counted(editor: Editor, tasks: Sequence[EditTask], *rest: Any) -> None:
        made.extend(task.instruction for task in tasks)
        if len(made) == 2:
            raise KeyboardInterrupt
        original(editor, tasks, *rest)

    monkeypatch.setattr(make, "_make", counted)
    words = ("score", "pairs", "-o", "out", "--at-once", "1")
    assert run(*words) == 130
    assert not Path("out/scores.json").exists()
    assert run(*words) == 0
    assert made == ["make the dog red", "add the hat", "add the hat"]
    monkeypatch.setattr(html_report, "_picture", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        run("score", "pairs", "-o", "late")
    assert not Path("late/scores.json").exists(), "it says that all is done, so it comes last"
    monkeypatch.undo()


def test_the_report_tells_the_taught_word_and_what_texts_cannot_see(
    run: Callable[..., int], base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs_folder(Path("dogs"), ["paint <my-dog> red"])
    adapters = [toy_adapter(word, base) for word in ("dog", "cat")]
    assert run("score", "dogs", "-a", *adapters, "-o", "out") == 0
    printed = " ".join(capsys.readouterr().out.split())
    told = "('paint dog red' for 'paint <my-dog> red')"
    assert (
        printed.count(f"texts are read in plain words, since no CLIP knows a taught one {told}")
        == 1
    )
    page = Path("out/report.html").read_text()
    assert "<b>paint &lt;my-dog&gt; red</b>" in page
    for label in ("source", f"{Path(base).name} alone", "dog", "cat", "target"):
        assert page.count(f'alt="{label}"') == 1
    for metric in METRICS[:6]:
        assert (escape(metric.says) in page) == (metric.name != "dino_concept")
    assert main(["card", adapters[0], "-o", "card.md", "--scores", "out/scores.json"]) == 0
    means = json.loads(Path("out/scores.json").read_text())["variants"][1]["means"]
    row = f"| {markdown('dog: clip_image')} | {means['clip_image']['mean']:.4g} |"
    assert row in Path("card.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("score nowhere", "nowhere: there is no such file or folder"),
        ("score pairs --base nowhere", "base 'nowhere': there is no such file"),
        ("score pairs --at-once 0", "--at-once: 0: expected a whole number of at least 1"),
        ("score pairs --device nowhere", "device nowhere: it cannot be used here"),
        ("score pairs -o pairs/pairs.jsonl", "it lies in what is scored"),
        ("score pairs --metrics lpips dino_concept", "'dino_concept' cannot be had: no DINO"),
        ("score pairs -a pairs", "pairs: this is a folder; expected the safetensors file"),
        ("score tradeoff pairs -o x.jpg", "x.jpg: expected a .png"),
        ("score tradeoff pairs --text-guidance 0", "text_guidance 0.0: expected 1 to 50"),
        ("score tradeoff pairs --image-guidance 1 99", "image_guidance 99.0: expected 1 to 50"),
        ("score tradeoff pairs --text-guidance 5 7", "a trade-off has one; expected one number"),
        ("tune-guidance pairs -o pairs", "output pairs: it is what is scored"),
        ("tune-guidance pairs --floor nan", "floor nan: expected an image similarity"),
        ("tune-guidance pairs --base a b", "base 'a': there is no such file"),
        ("tune-guidance pairs red", "a set of edits has its own instructions"),
        ("tune-guidance pairs/0_a.png", "a picture without an instruction"),
        ("tune-guidance pairs/0_a.png red --count 2", "--count: one picture is one edit"),
        ("tune-guidance pairs/0_a.png red --captions a a", "both are 'a', so nothing changes"),
        ("tune-guidance nothing.png red", "nothing.png"),
        ("edit pairs/0_a.png red --guidance best", "invalid choice: 'best'"),
        ("edit pairs/0_a.png red -o pairs/0_a.png/x.png", "a file lies where a folder is needed"),
    ],
)
def test_every_mistake_is_one_message(
    words: str, told: str, run: Callable[..., int], base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--clip", "embedded"] * words.startswith(("score", "tune"))
    steps = ["--steps", "1", *(["--base", base] if "--base" not in words else [])]
    before = set(Path().rglob("*"))
    try:
        code = main([*words.split(), *quick, *steps])
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    assert code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("customize") <= 2, "one message"
    assert told in " ".join(printed.err.split())
    assert set(Path().rglob("*")) == before, "nothing is written"


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
    zeros = ("--steps", "0", "--seed", "5", "--at-once", "2")
    assert run("score", "pairs", "-o", "z", *zeros, toy=False) == 2
    told = capsys.readouterr().err
    assert "these edits are finished, so steps, seed, at-once would have no effect" in told
    assert not Path("y").exists()
    assert not Path("z").exists()


def test_models_that_no_metric_looks_through_stay_closed(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoders, "open_clip", lambda *_: pytest.fail("opened"))
    monkeypatch.setattr(encoders, "open_dino", lambda *_: pytest.fail("opened"))
    assert run("score", "pairs", "-o", "x", "--dino", "any", "--metrics", "psnr", "ssim") == 0
    assert "measured by" not in capsys.readouterr().out
    models = json.loads(Path("x/scores.json").read_text())["models"]
    assert models == {"clip": None, "dino": None, "judge": None}


def test_a_report_of_another_program_stays(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("mine/report.html")
    page.parent.mkdir()
    page.write_text("mine")
    for more in ((), ("--overwrite",)):
        assert run("score", "pairs", "-o", "mine", "--metrics", "psnr", *more) == 2
        assert "mine/report.html: no run wrote what lies there" in capsys.readouterr().err
        assert page.read_text() == "mine"


def test_sweeps_take_all_numbers_of_the_same_edits(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Edits without two captions that differ have no direction, so they count in neither number."""
    rows = Path("pairs/pairs.jsonl").read_text().splitlines()
    bare = {**json.loads(rows[1]), "source_caption": None}
    Path("pairs/pairs.jsonl").write_text("\n".join([rows[0], json.dumps(bare)]))
    image = ("--image-guidance", "1.5")
    assert run("score", "tradeoff", "pairs", *image) == 0
    [both] = read_points(Path("tradeoff.json")).values()
    assert "1 of 2 edits are left out" in capsys.readouterr().out
    assert ">1 edits of pairs" in Path("tradeoff.svg").read_text()
    assert run("tune-guidance", "pairs", *image, "--text-guidance", "7.5", "-o", "t.json") == 0
    assert "1 of 2 edits are left out" in " ".join(capsys.readouterr().out.split())
    Path("pairs/pairs.jsonl").write_text(rows[0])
    assert run("score", "tradeoff", "pairs", *image, "-o", "one.png") == 0
    [one] = read_points(Path("one.json")).values()
    assert one == both
    assert (one.count, one.against) == (1, "captions")


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
    kept = Path("tradeoff.json").read_text()
    assert run(*words) == 2
    assert "tradeoff.png: it is there already" in capsys.readouterr().err
    assert run(*words, "2", "--overwrite") == 0
    assert measured == [1.0, 1.6, 1.6, 2.0]
    assert read_points(Path("tradeoff.json")).keys() > json.loads(kept)["points"].keys()
    Path("tradeoff.png").unlink()  # as a kill between both plots leaves it
    assert run(*words) == 0
    monkeypatch.setattr(tradeoff_module, "__version__", "another")
    assert run(*words, "--overwrite") == 0
    assert measured == [1.0, 1.6, 1.6, 2.0, 1.0, 1.6], "another version is another maker"
    Path("other.svg").write_text("mine")
    assert run(*words, "-o", "other.png") == 2
    assert Path("other.svg").read_text() == "mine"
    Path("tradeoff.json").write_text("{}")
    assert run(*words, "--overwrite") == 2
    assert "it holds no points to go on from" in capsys.readouterr().err


def test_a_tradeoff_of_several_adapters_is_the_papers_unless_told_otherwise(
    run: Callable[..., int], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[float, float]] = []

    def made_up(*arguments: object, **_: object) -> Point:
        text, image = arguments[3:5]
        assert isinstance(text, float)
        assert isinstance(image, float)
        measured.append((text, image))
        return point(0.3 - image / 10 + len(measured) / 1000, image / 3, text, image)

    monkeypatch.setattr(tradeoff_module, "measure", made_up)
    dog, cat = toy_adapter("dog", base), toy_adapter("cat", base)
    assert run("score", "tradeoff", "pairs", "-a", dog) == 0
    paper = [(7.5, image) for image in (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)]
    assert measured == paper * 2
    assert run("score", "tradeoff", "pairs", "-a", dog, cat, f"{dog}:0.5+{cat}", "--overwrite") == 0
    assert measured == paper * 4, "the base and the dog were measured before"
    drawn = Path("tradeoff.svg").read_text()
    labels = (f">{Path(base).name} alone<", ">dog<", ">cat<", ">dog:0.5+cat<")
    assert [drawn.count(label) for label in labels] == [1] * 4
    own = ("--text-guidance", "5", "--image-guidance", "1.5", "1", "1.5", "-o", "own.png")
    assert run("score", "tradeoff", "pairs", "--adapters-only", "-a", dog, *own) == 0
    assert measured[28:] == [(5, 1), (5, 1.5)], "each once, in rising order"


def test_tune_guidance_of_a_set_and_of_one_picture(
    run: Callable[..., int], base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("--text-guidance", "5", "7.5", "--image-guidance", "1", "1.5")
    assert run("tune-guidance", "pairs", *sweep, "-o", "sweep.json") == 0
    assert "against the captions" in capsys.readouterr().out
    kept = json.loads(Path("sweep.json").read_text())
    assert len(kept["points"]) == 4
    assert kept["chosen"] in kept["points"]
    assert run("tune-guidance", "pairs/0_a.png", "make it red", *sweep) == 0
    assert "against the instructions" in capsys.readouterr().out
    assert (
        run(
            "tune-guidance", "pairs/0_a.png", "add <my-dog>", "-a", toy_adapter("dog", base), *sweep
        )
        == 0
    )
    assert "so it read 'add dog': look at the edits" in capsys.readouterr().out
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
    [chosen] = [line.split() for line in printed.splitlines() if line.endswith("chosen")]
    settings = read_settings(Path("a.png"))
    assert settings is not None
    assert f"{settings['text_guidance']:.3g}" == chosen[0]
    assert settings["image_guidance"] == 1.2
    assert f"text guidance {chosen[0]} and image guidance 1.2: " in printed, "it says why"
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
