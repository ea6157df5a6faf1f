"""The project folder behind the page: its one door, its pairs and its recipes; without gradio."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.pairs import ours, put, put_rows, scene, start_end
from builders.studio import INSTRUCTION, pictures_to_drop
from PIL import Image

from customize.errors import PairsError, StudioError
from customize.pairs.find import find_pairs
from customize.recipe import load_recipe
from customize.studio import html
from customize.studio.pair_folder import PairFolder, match_names
from customize.studio.project import Project
from customize.studio.recipe_form import Form, check_text, memory, yaml_of

OUTSIDE = ["../x", "/etc", "a/b", "..", ".", "", "A B", "x" * 80, "con\0x", None, 3, "ünï"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    root.mkdir()
    return Project(root.resolve())


@pytest.mark.parametrize("name", OUTSIDE)
def test_only_plain_names_lead_to_places(project: Project, name: object) -> None:
    for kind in ("pairs", "recipes", "runs"):
        with pytest.raises(StudioError, match="expected small letters"):
            project.place(kind, name)


def test_no_path_and_no_link_leads_out(project: Project, tmp_path: Path) -> None:
    for written in ("../secret", "/etc/passwd", "pairs/../../x", ""):
        with pytest.raises(StudioError):
            project.inside(written)
    (tmp_path / "secret").mkdir()
    (project.root / "pairs").mkdir()
    (project.root / "pairs" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StudioError, match="outside of the project folder"):
        project.place("pairs", "link")
    assert project.place("runs", "dog") == project.root / "runs" / "dog"
    with pytest.raises(StudioError, match="none yet: train one"):
        project.adapter("../../adapter")


def test_uploads_become_pairs_and_the_swapped_one_is_found_and_mended(tmp_path: Path) -> None:
    folder = PairFolder(tmp_path / "pairs", tmp_path)
    drop = pictures_to_drop(tmp_path / "drop", swapped=3)
    assert folder.add([*drop, put(tmp_path / "drop" / "9a.png")], INSTRUCTION) == [
        "4 pairs added",
        "9a.png has no partner and was left out",
    ]
    found, _ = folder.faults(64, None)
    assert [number for number, faults in found.items() if "reversed" in faults[0].found] == [2]
    folder.swap(2)
    assert not folder.faults(64, None)[0]
    assert len(find_pairs(folder.path).pairs) == 4, "the command line reads the same folder"


def test_pairs_are_mended_one_by_one(tmp_path: Path) -> None:
    folder = PairFolder(tmp_path / "pairs", tmp_path)
    put(tmp_path / "1a.png", scene(1, (64, 48)))
    put(tmp_path / "1b.png", scene(1, (96, 96)))
    folder.add([tmp_path / "1a.png", tmp_path / "1b.png"], "make it <my-cat>")
    assert "different shapes" in folder.faults(32, None)[0][0][0].found
    folder.align(0)
    with Image.open(folder.pairs()[0].source) as one, Image.open(folder.pairs()[0].target) as other:
        assert one.size == other.size == (48, 48)
    folder.use_word(0, "<my-dog>")
    assert folder.pairs()[0].instruction == "make it <my-dog>"
    folder.say(0, "  make it\n red ")
    assert folder.pairs()[0].instruction == "make it red"
    folder.use_word(0, "<my-dog>")
    assert folder.pairs()[0].instruction == "make it red <my-dog>"
    folder.drop(0)
    assert folder.pairs() == []
    with pytest.raises(StudioError, match="pair 1: it is gone"):
        folder.swap(0)


def test_any_layout_is_taken_over_and_bad_pictures_add_nothing(tmp_path: Path) -> None:
    folder = PairFolder(tmp_path / "pairs", tmp_path)
    assert folder.adopt(start_end(tmp_path / "fal", "x", "y")) == (
        "2 pairs added, laid out as start and end pictures (fal)"
    )
    folder.adopt(ours(tmp_path / "ours"))
    assert len(folder.pairs()) == 5
    bad = put(tmp_path / "2b.png", b"not a picture")
    with pytest.raises(PairsError, match="not a picture"):
        folder.add([put(tmp_path / "2a.png"), bad])
    assert len(folder.pairs()) == 5


def test_names_decide_what_is_a_pair() -> None:
    named = ["dog_before.png", "dog_after.png", "cat-source.jpg", "cat-edited.jpg", "odd.png"]
    matched, left = match_names([Path(name) for name in named])
    assert [(one.name, other.name) for one, other in matched] == [
        ("dog_before.png", "dog_after.png"),
        ("cat-source.jpg", "cat-edited.jpg"),
    ]
    assert [path.name for path in left] == ["odd.png"]


def test_a_form_is_a_recipe_whatever_is_typed(project: Project) -> None:
    ours(project.root / "pairs" / "dog")
    form = Form("dog", "dog", word="<my-dog>", initializer="dog", steps=20)
    recipe, faults = check_text(project, "dog", yaml_of(form))
    assert not faults
    assert recipe is not None
    assert (recipe.train.steps, recipe.concepts[0].word) == (20, "<my-dog>")
    odd = Form("dog", "dog", word='"\n  - name: x', base="{evil: 1}")
    recipe, faults = check_text(project, "dog", yaml_of(odd))
    assert recipe is None
    assert {fault.place.partition(" ")[2] for fault in faults} >= {"concepts.0.word"}
    assert list((project.root / "recipes").iterdir()) == [], "drafts are not left behind"


def test_a_recipe_may_not_reach_out_of_the_project(project: Project, tmp_path: Path) -> None:
    ours(project.root / "pairs" / "dog")
    ours(tmp_path / "elsewhere")
    text = yaml_of(Form("dog", "dog"))
    for wrong in (
        text.replace("../pairs/dog", "../../elsewhere"),
        text.replace("runs/dog", "../dog"),
        text.replace('"embedded"', f'"{tmp_path / "elsewhere"}"'),
    ):
        recipe, faults = check_text(project, "dog", wrong)
        assert recipe is None
        assert "outside of the project folder" in str(faults[0])


def test_tables_may_not_lead_to_pictures_outside(project: Project, tmp_path: Path) -> None:
    secret = put(tmp_path / "secret.png")
    inside = put(project.root / "uploads" / "a.png")
    for written in (str(secret), "../../secret.png"):
        row = {"source": written, "instruction": "make it red", "edited": "a.png"}
        put_rows(inside.parent / "stolen.jsonl", row)
        folder = project.pair_folder("stolen")
        with pytest.raises(StudioError, match="outside of the project folder"):
            folder.adopt(project.inside("uploads/stolen.jsonl"))
        assert folder.pairs() == []
        text = yaml_of(Form("stolen", "x")).replace("../pairs/x", "../uploads/stolen.jsonl")
        recipe, faults = check_text(project, "stolen", text)
        assert recipe is None
        assert "secret.png is outside of the project folder" in str(faults[0])
        put_rows(project.root / "pairs" / "stolen" / "pairs.jsonl", row | {"source": str(secret)})
        with pytest.raises(StudioError, match="pair 1: a picture is outside"):
            project.pair_folder("stolen").pairs()
        folder.drop(0)


def test_memory_is_told_of_the_recipe(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    ours(project.root / "pairs" / "dog")
    recipe, _ = check_text(project, "dog", yaml_of(Form("dog", "dog")))
    assert recipe is not None
    assert "expected peak of memory beside the libraries" in memory(recipe, "CPU")[0]
    assert "it fits" in memory(recipe, "8GB")[1]
    put(project.root / "recipes" / "dog.yaml", yaml_of(Form("dog", "dog")))
    assert load_recipe(project.root / "recipes" / "dog.yaml").train.steps == 200


def test_texts_are_shown_as_texts() -> None:
    evil = "<script>alert(1)</script>\" onerror='x"
    shown = html.picture(scene(0), evil, evil) + html.said(evil) + html.table([evil], [[evil]])
    assert "<script" not in shown
    assert "onerror='" not in shown
    assert '" onerror' not in shown
