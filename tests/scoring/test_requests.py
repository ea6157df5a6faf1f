"""What the user names to be scored: every kind is found, and every fault is told at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders.bases import toy_base
from builders.scores import adapter, pairs_folder, picture, table
from PIL import Image

from customize.errors import CustomizeError, FaultsError, ScoreError
from customize.scoring.edits.requests import clip_for_bases, clip_for_items, read_asked, tasks_asked
from customize.scoring.edits.tasks import EditTask, in_plain_words
from customize.scoring.edits.variants import compared, group_of


def test_pairs_are_edits_to_make_with_their_targets_as_references(tmp_path: Path) -> None:
    folder = pairs_folder(tmp_path / "p", ["make it red", "make it blue", "add a hat"])
    tasks = read_asked(str(folder)).tasks
    assert [task.instruction for task in tasks] == ["make it red", "make it blue", "add a hat"]
    assert all(len(task.references) == 3 for task in tasks)
    assert len(read_asked(str(folder), 2).tasks) == 2
    assert (tasks[0].source_caption, tasks[0].target_caption) == ("a dog", "<my-dog>")


def test_a_recipe_gives_its_held_out_pairs_and_each_concepts_own_references(
    tmp_path: Path,
) -> None:
    pairs_folder(tmp_path / "dog", ["turn the dog into <my-dog>"] * 3)
    pairs_folder(tmp_path / "look", ["in our style"] * 2)
    pairs_folder(tmp_path / "unseen", ["paint <my-dog> red", "in our style", "who knows"])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "concepts:\n"
        "  - {name: dog, word: <my-dog>, initializer: dog, pairs: dog}\n"
        "  - {name: look, pairs: look}\n"
        "preview: {images: unseen}\n"
    )
    asked = read_asked(str(recipe))
    assert asked.recipe is not None
    assert [task.concept for task in asked.tasks] == ["dog", "look", ""]
    assert [len(task.references) for task in asked.tasks] == [3, 2, 0]
    recipe.write_text(recipe.read_text().replace("preview: {images: unseen}\n", ""))
    assert [task.concept for task in read_asked(str(recipe)).tasks] == ["dog"] * 3 + ["look"] * 2


def test_the_drawn_world_gives_edits_with_everything_known() -> None:
    tasks = read_asked("embedded", 6).tasks
    assert len(tasks) == 6
    for task in tasks:
        assert task.source_caption != task.target_caption, "each changes something"
        assert isinstance(task.mask, Image.Image)
        assert np.asarray(task.mask).any()
    concept = read_asked("embedded/my_dog", 3).tasks
    assert all("<my-dog>" in task.instruction and len(task.references) == 4 for task in concept)
    with pytest.raises(ScoreError, match="no concept 'my_cat'; expected embedded or embedded/my_d"):
        read_asked("embedded/my_cat")


def test_finished_edits_share_the_targets_of_their_concept(tmp_path: Path) -> None:
    for name in ("a", "b", "t", "u", "m"):
        picture(tmp_path / "e" / f"{name}.png", ord(name))
    row = {"source": "a.png", "instruction": "make it night", "output": "b.png"}
    path = table(
        tmp_path / "e",
        {**row, "edited": "t.png", "edited_caption": "night", "concept": "c", "mask": "m.png"},
        {**row, "target": "u.png", "concept": "c"},
        {**row, "target": "t.png"},
    )
    for name in (path, path.parent):
        items = read_asked(str(name)).finished
        assert [len(item.references) for item in items] == [2, 2, 0]
    assert items[0].target_caption == "night"
    assert items[0].mask is not None
    with pytest.raises(ScoreError, match="these edits are finished"):
        tasks_asked(str(path))
    renamed = path.rename(path.with_name("mine.jsonl"))
    assert len(read_asked(str(renamed)).finished) == 3


def test_every_fault_of_a_table_is_told_at_once(tmp_path: Path) -> None:
    picture(tmp_path / "e" / "a.png")
    path = table(
        tmp_path / "e",
        {"source": "a.png", "instruction": "x", "output": "b.png"},
        {"source": "a.png", "output": "a.png", "sorce_caption": "?"},
        {"source": "a.png", "instruction": 3, "output": "a.png"},
    )
    with pytest.raises(FaultsError) as caught:
        read_asked(str(path))
    told = str(caught.value)
    assert "edits.jsonl:1: output b.png does not exist" in told
    assert "edits.jsonl:2: unknown key 'sorce_caption'; did you mean 'source_caption'?" in told
    assert "edits.jsonl:2: no instruction; write what was asked for" in told
    assert "edits.jsonl:3: instruction is 3" in told
    path.write_text("")
    with pytest.raises(FaultsError, match="holds no edits"):
        read_asked(str(path.parent))


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("nowhere", ScoreError, "no such file or folder; expected a recipe, pairs.*check the path"),
        ("embeded", ScoreError, "did you mean 'embedded'"),
        ("none.yaml", CustomizeError, "none.yaml"),
        ("embedded", ScoreError, "count 0"),
    ],
)
def test_names_that_lead_nowhere(name: str, error: type[CustomizeError], expected: str) -> None:
    with pytest.raises(error, match=expected):
        read_asked(name, 0 if name == "embedded" else None)


def test_a_variant_is_another_where_its_base_is_edited_with_otherwise(tmp_path: Path) -> None:
    base, found = toy_base(tmp_path / "base"), set[str]()
    for way in ({}, {"steps": 3}, {"detail": "keep"}):
        edit = {"steps": 2, "text_guidance": 2, "image_guidance": 1.5, **way}
        (base / "customize.json").write_text(json.dumps({"edit": edit}))
        found.add(compared([str(base)], [])[0].identity())
    assert len(found) == 3


def test_variants_are_the_base_alone_and_each_group_of_adapters(tmp_path: Path) -> None:
    one = adapter(tmp_path / "dog" / "adapter.safetensors")
    other = adapter(tmp_path / "cat.safetensors", "<my-cat>")
    groups = [group_of(str(one)), group_of(f"{one}:0.5+{other}")]
    variants = compared([], groups)
    assert [v.label for v in variants] == ["embedded alone", "dog", "dog:0.5+cat"]
    assert [v.base for v in variants] == ["embedded"] * 3
    assert [set(v.taught) for v in variants] == [set(), {"<my-dog>"}, {"<my-dog>", "<my-cat>"}]
    assert len({v.identity() for v in variants}) == 3
    assert variants[1].identity() == compared([], [group_of(f"{one}:1")])[1].identity()
    assert [v.label for v in compared([], groups[:1] * 2, alone=False)] == ["dog", "dog (2)"]
    with pytest.raises(ScoreError, match="nothing to compare"):
        compared([], [], alone=False)
    odd = tmp_path / "a+b.safetensors"
    adapter(odd)
    assert group_of(str(odd)) == [(odd, 1.0)]


def test_taught_words_are_said_plainly_to_whom_they_are_unknown() -> None:
    task = EditTask("a.png", "paint <My-Dog> like <my-cat>", None, "a dog", "<my-Dog>")
    plain = {"<my-dog>": "dog", "<my-cat>": "cat"}
    changed = in_plain_words(task, plain, ["<my-dog>"])
    assert changed.instruction == "paint <My-Dog> like cat"
    assert changed.plainly == "paint dog like cat"
    assert (changed.source_caption, changed.target_caption) == ("a dog", "dog")
    item = changed.finished("b.png")
    assert item.wording == "paint dog like cat"


def test_the_clip_that_suits(tmp_path: Path) -> None:
    assert clip_for_bases(["embedded", "embedded"]) == "embedded"
    assert clip_for_bases(["embedded", "timbrooks/instruct-pix2pix"]).startswith("openai/")
    task = EditTask("a.png", "x")
    assert clip_for_items([task.finished(picture(tmp_path / "s.png"))]) == "embedded"
    large = picture(tmp_path / "l.png", side=65)
    assert clip_for_items([task.finished(large)]).startswith("openai/")
