"""A whole synthesis on toy weights: streamed, filtered, resumed at any stop, and what it writes."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.pairs import put
from builders.text_to_image import toy_drawing_base
from builders.writers import ToyWriter

from customize.cli.main import main
from customize.errors import OutputError, OutputExistsError, RecipeError, SynthesisError
from customize.files.lock import in_use
from customize.files.manifest import NAME as MANIFEST
from customize.pairs.find import find_pairs
from customize.recipe.synthesis import SynthesisRecipe, load_synthesis_recipe
from customize.synthesis import run
from customize.synthesis.output.journal import Journal
from customize.synthesis.samples import SampleStage

ROOT = Path(__file__).resolve().parents[2]
COUNT = 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_drawing_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def recipe(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SynthesisRecipe:
    monkeypatch.setattr(run, "open_writer", lambda _: ToyWriter())
    captions = [f"dog {n}" for n in range(COUNT)]
    captions[7] = captions[6]  # the same edit twice
    put(tmp_path / "captions.txt", "\n".join(captions))
    put(
        tmp_path / "recipe.yaml",
        f"captions: captions.txt\ntriplets: 24\noutput: {tmp_path / 'out'}\n"
        f"formats: [webdataset, imagefolder]\npictures: {{base: {base}, steps: 2, at_once: 8}}\n"
        "filter: {pictures: -1, first: -1, second: -1, direction: 0.0,\n"
        "  keep: 2, most: 4, alike: 1}\n"
        "writer: {kind: local, model: none}\n",
    )
    return load_synthesis_recipe(tmp_path / "recipe.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("texts.jsonl", MANIFEST)  # may be one group ahead
    }


def test_kept_pairs_are_ready_to_train_on_and_the_rest_is_accounted_for(
    recipe: SynthesisRecipe, tmp_path: Path
) -> None:
    result = run.synthesize(recipe, progress=False)
    found = find_pairs(recipe.output / "pairs.jsonl")
    assert len(found.pairs) == result.kept > 8
    assert {pair.instruction for pair in found.pairs} == {"paint it blue"}
    provenance = [json.loads(line) for line in (recipe.output / "provenance.jsonl").open()]
    assert len(provenance) == result.kept
    models = provenance[0]["models"]
    assert models["writer"] == {"name": "toy writer", "licence": "Apache-2.0"}
    assert provenance[0]["settings"].keys() >= {"seed", "guidance", "self_until"}
    assert provenance[0]["scores"]["direction"] >= 0
    assert str(tmp_path) not in json.dumps(provenance)

    with tarfile.open(recipe.output / "shards" / "000000.tar") as tar:
        names = tar.getnames()
    assert len(names) == 3 * result.kept
    assert {name.split(".", 1)[1] for name in names} == {"source.png", "edited.png", "json"}
    folder = find_pairs(recipe.output / "imagefolder" / "train")
    assert len(folder.pairs) == result.kept

    samples = [s for p in Journal(recipe.output / "samples.jsonl").pieces for s in p["samples"]]
    good = sum(sample["verdict"] == "kept" for sample in samples)
    assert result.kept == min(good, recipe.triplets)  # the last group may have more than are asked
    assert len(samples) == good + sum(
        n for reason, n in result.reasons.items() if reason.startswith("pictures: ")
    )
    assert result.reasons["text: refused"] >= 2
    assert result.reasons["text: duplicate"] == 1
    for prompt in {sample["prompt"] for sample in samples}:
        own = [sample for sample in samples if sample["prompt"] == prompt]
        assert len(own) <= 4
        if len(own) == 4:  # it went on only because too few were good after the first two
            assert sum(s["scores"]["direction"] >= 0 for s in own[:2]) < 2
    page = result.report.read_text()
    assert "the picture did not change as its caption did" in page
    rejected = [sample for sample in samples if sample["verdict"] == "direction"]
    assert len(list((recipe.output / "rejected").glob("*.jpg"))) == min(6, len(rejected)) > 0


class KilledError(Exception):
    """What a test throws in place of a kill."""


def test_killed_at_any_moment_it_makes_the_same_set_once(
    recipe: SynthesisRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.synthesize(recipe, progress=False)
    unbroken = contents(recipe.output)
    rng, kills, draw = np.random.default_rng(0), 0, SampleStage.draw
    append = Journal.append
    left = {"calls": 0}

    def fragile_draw(self: Any, wanted: Any) -> Any:
        left["calls"] -= 1
        if left["calls"] == 0:
            raise KilledError
        return draw(self, wanted)

    def fragile_append(self: Any, content: Any) -> Any:
        left["calls"] -= 1
        if left["calls"] == 0:  # in the middle of writing a line
            with self.path.open("ab") as file:
                file.write(b'{"piece": 1, "sam')
            raise KilledError
        return append(self, content)

    broken = recipe.model_copy(update={"output": recipe.output.with_name("broken")})
    monkeypatch.setattr(SampleStage, "draw", fragile_draw)
    monkeypatch.setattr(Journal, "append", fragile_append)
    while kills < 60:
        left["calls"] = int(rng.integers(1, 7))
        try:
            run.synthesize(broken, progress=False)
            break
        except KilledError:
            kills += 1
    assert 3 <= kills < 60
    assert contents(broken.output) == unbroken


def test_a_recipe_goes_on_for_more_and_never_mixes_with_another(recipe: SynthesisRecipe) -> None:
    few = run.synthesize(recipe.model_copy(update={"triplets": 4}), progress=False)
    assert few.kept == 4
    names = [json.loads(line)["name"] for line in (few.folder / "provenance.jsonl").open()]
    more = run.synthesize(recipe.model_copy(update={"triplets": 12}), progress=False)
    again = [json.loads(line)["name"] for line in (few.folder / "provenance.jsonl").open()]
    assert (more.kept, again[:4]) == (12, names)
    with pytest.raises(OutputExistsError, match="another recipe"):
        run.synthesize(recipe.model_copy(update={"seed": 1}), progress=False)


def test_overwriting_removes_triplets_and_nothing_else(recipe: SynthesisRecipe) -> None:
    few = recipe.model_copy(update={"triplets": 4})
    run.synthesize(few, progress=False)
    names = ("mine.txt", "pictures/holiday.png", "shards/mine.tar", "imagefolder/train/mine.png")
    mine = [put(recipe.output / name, "kept") for name in names]
    other = few.model_copy(update={"seed": 1})
    run.synthesize(other, overwrite=True, progress=False)
    assert {path.read_text() for path in mine} == {"kept"}
    foreign = put(recipe.output.with_name("home") / "thesis.txt", "years of work").parent
    with pytest.raises(OutputExistsError, match="holds other things"):
        run.synthesize(few.model_copy(update={"output": foreign}), overwrite=True, progress=False)
    assert [file.name for file in foreign.iterdir()] == ["thesis.txt"]


def test_triplets_come_back_where_those_to_replace_them_fail(
    recipe: SynthesisRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = recipe.model_copy(update={"triplets": 4})
    run.synthesize(few, progress=False)
    before = contents(recipe.output)

    def fail(self: Any, wanted: Any) -> Any:
        raise SynthesisError("the judge went home")

    with monkeypatch.context() as patch:
        patch.setattr(SampleStage, "draw", fail)
        with pytest.raises(SynthesisError, match="went home"):
            run.synthesize(few.model_copy(update={"seed": 1}), overwrite=True, progress=False)
    assert contents(recipe.output) == before
    assert run.synthesize(few, progress=False).kept == 4


def test_a_stopped_replacement_goes_on(
    recipe: SynthesisRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = recipe.model_copy(update={"triplets": 4})
    run.synthesize(few, progress=False)
    other, draw, drawn = few.model_copy(update={"seed": 1, "triplets": 12}), SampleStage.draw, 0

    def stop(self: Any, wanted: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 4:
            raise KeyboardInterrupt
        return draw(self, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(SampleStage, "draw", stop)
        with pytest.raises(KeyboardInterrupt):
            run.synthesize(other, overwrite=True, progress=False)
    begun = Journal(recipe.output / "samples.jsonl").pieces
    assert begun
    run.synthesize(other, overwrite=True, progress=False)
    assert Journal(recipe.output / "samples.jsonl").pieces[: len(begun)] == begun
    assert not [path for path in recipe.output.iterdir() if path.name.startswith(".replaced")]


def test_triplets_keep_away_from_what_they_are_made_of(recipe: SynthesisRecipe) -> None:
    base = Path(recipe.pictures.base)
    for output, found in ((base / "out", "it lies in the base"), (base, "it is the base")):
        with pytest.raises(OutputError, match=found):
            run.synthesize(recipe.model_copy(update={"output": output}), progress=False)
    with in_use(recipe.output), pytest.raises(OutputError, match="it is in use"):
        run.synthesize(recipe, progress=False)


def test_a_trial_chooses_thresholds_once(recipe: SynthesisRecipe) -> None:
    changes = {"keep_share": 0.5, "trial": 16}
    changed = recipe.model_copy(update={"filter": recipe.filter.model_copy(update=changes)})
    result = run.synthesize(changed, progress=False)
    trial = json.loads((result.folder / "trial.json").read_text())
    journal = Journal(result.folder / "samples.jsonl")
    assert journal.pieces[0]["thresholds"] == trial["thresholds"]
    assert trial["samples"] >= 8
    samples = [sample for piece in journal.pieces for sample in piece["samples"]]
    assert {sample["verdict"] for sample in samples} > {"kept", "pictures"}


def test_none_kept_is_one_message(recipe: SynthesisRecipe) -> None:
    strict = recipe.filter.model_copy(update={"direction": 1.0})
    with pytest.raises(SynthesisError, match=r"no pair was kept .*pictures: direction"):
        run.synthesize(recipe.model_copy(update={"filter": strict}), progress=False)


def test_the_shipped_recipe_is_good_and_asks_for_what_the_paper_did() -> None:
    recipe = load_synthesis_recipe(ROOT / "recipes" / "synthesize_embedded.yaml")
    assert recipe.writer.kind == "drawn_world"
    assert recipe.pictures.self_until == (0.1, 0.9)
    assert (recipe.triplets, recipe.filter.keep) == (200, 4)


GOOD = "captions: captions.txt\nwriter: {kind: local, model: x}\n"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("triplets: 3\n", "", "no captions to start from"),
        (GOOD + "drawn_captions: 3\n", "drawn_captions", "beside captions"),
        ("drawn_captions: 3\nwriter: {kind: local, model: x}\n", "drawn_captions", "kind local"),
        ("captions: captions.txt\nwriter: {kind: endpoint}\n", "writer.server", "needs it"),
        ("captions: captions.txt\nwriter: {kind: local}\n", "writer.model", "needs it"),
        ("captions: none.txt\n", "captions", "no such folder or file"),
        ("drawn_captions: 3\nwriter: {model: x}\n", "writer.model", "belongs to kind local"),
        ("drawn_captions: 3\nwriter: {knid: local}\n", "writer.knid", "did you mean 'kind'"),
        (
            "captions: captions.txt\nwriter: {kind: endpoint, server: {url: ftp://x, model: m}}\n",
            "writer.server.url",
            "http://",
        ),
        ("drawn_captions: 3\nfilter: {keep: 0}\n", "filter.keep", "at least 1"),
        ("drawn_captions: 3\nfilter: {judge: {url: http://x}}\n", "filter.judge.model", "missing"),
        ("drawn_captions: 3\npictures: {guidance: [9, 3]}\n", "pictures.guidance", "lower one"),
        ("drawn_captions: 3\nformats: [zip]\n", "formats.0", "webdataset"),
        ("drawn_captions: 3\npictures: {steps: ten}\n", "pictures.steps", "whole number"),
    ],
)
def test_faulty_recipes_are_told_with_place_and_cure(
    text: str, place: str, words: str, tmp_path: Path
) -> None:
    put(tmp_path / "captions.txt", "a dog")
    with pytest.raises(RecipeError) as caught:
        load_synthesis_recipe(put(tmp_path / "recipe.yaml", text))
    assert any(fault.place.endswith(place) and words in str(fault) for fault in caught.value.faults)


def test_the_command_prints_where_and_why_not(
    recipe: SynthesisRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del recipe
    arguments = ["synthesize", str(tmp_path / "recipe.yaml"), "--set", "triplets=6"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "6 triplets: " in out
    assert "text: refused" in out
    assert (tmp_path / "out" / "sheet.png").is_file()
    assert main(["synthesize", str(tmp_path / "none.yaml")]) == 2
    assert main([*arguments, "seed=3"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "seed=3", "--overwrite"]) == 0


def test_a_base_that_draws_nothing_is_refused_before_anything_is_written(
    recipe: SynthesisRecipe, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from builders.bases import toy_base

    folder = toy_base(tmp_path / "editing")
    (folder / "customize.json").write_text('{"edit": {}}')
    arguments = ["synthesize", str(tmp_path / "recipe.yaml"), "--set", f"pictures.base={folder}"]
    assert main(arguments) == 2
    assert "draw none from a text" in capsys.readouterr().err
    assert not recipe.output.exists()
