"""The smaller parts of a run: precision, memory, preserved edits, previews' choice, the curve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_resolved
from builders.pairs import ours, put, scene
from builders.runs import toy_pairs, toy_recipe
from torch import nn

from customize.adapters import LowRank, attach
from customize.drawing.loss_curve import loss_curve
from customize.errors import BaseModelError, RecipeError, TrainingError
from customize.families import open_family
from customize.families.base import Base
from customize.families.known_edits import COMMON
from customize.recipe.sections import Preservation
from customize.shapes import Pair
from customize.training import check, device, previews
from customize.training.device import (
    memory_explained,
    mixed_precision,
    open_accelerator,
    use_channels_last,
)
from customize.training.plan import plan_run, shaping_facts, views_of
from customize.training.preserved_edits import instructions_to_preserve
from customize.training.preview_choice import choose_sampling, choose_shown, held_out_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


def test_precision_follows_the_wish_then_the_launcher_then_the_hardware(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for has, expected in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(device, "cpu_has_bfloat16", lambda has=has: has)
        assert mixed_precision("auto") == expected
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what the launcher says unasked
    assert mixed_precision("auto") == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert mixed_precision("auto") == "bf16"
    assert mixed_precision("no") == "no"


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 works there")
def test_fp16_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"fp16 needs a CUDA device.*set it to auto"):
        open_accelerator("fp16")


def test_frozen_convolutions_lie_channels_last_on_a_gpu(base: Base) -> None:
    family = open_family(base)
    attach(family, LowRank(rank=2, targets=("convolutions",)))
    noisy, level = torch.ones(2, 4, 16, 16), torch.tensor([10, 900])
    conditions = {"source": torch.zeros(2, 4, 16, 16), "text": torch.ones(2, 24, 16)}
    with torch.no_grad():
        before = family.predict(noisy, level, conditions)
        use_channels_last(family.denoiser, torch.device("cuda"))
        after = family.predict(noisy, level, conditions)
    torch.testing.assert_close(after, before)
    wide = {
        (weight.requires_grad, weight.is_contiguous())
        for module in family.denoiser.modules()
        if isinstance(module, nn.Conv2d) and min((weight := module.weight).shape[1:]) > 1
    }
    assert wide == {(False, False), (True, True)}


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    lost = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    for error in (lost, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        with (
            pytest.raises(TrainingError, match=r"out of memory .*room for b: 4; set c: 1; or d: 2"),
            memory_explained("b: 4", lambda: ["c: 1", "d: 2"]),
        ):
            raise error
    with pytest.raises(TrainingError, match="choose a smaller base"), memory_explained("", list):
        raise lost
    with pytest.raises(RuntimeError, match="shapes differ"), memory_explained("", list):
        raise RuntimeError("shapes differ")


def test_preserved_instructions_come_from_the_base_a_file_or_a_list(
    tmp_path: Path, base: Base
) -> None:
    def found(**fields: object) -> tuple[str, ...]:
        return instructions_to_preserve(Preservation.model_validate(fields), own)

    own = replace(base, folder=tmp_path)
    assert found() == COMMON
    assert found(share=0.0) == ()
    assert found(instructions=["make it red"]) == ("make it red",)
    (tmp_path / "customize.json").write_text(json.dumps({"edit": {}}))
    assert found() == COMMON
    (tmp_path / "customize.json").write_text(json.dumps({"instructions": ["blur it"]}))
    assert found() == ("blur it",)
    (tmp_path / "customize.json").write_text(json.dumps({"instructions": [1]}))
    with pytest.raises(BaseModelError, match="a list of texts"):
        found()
    (tmp_path / "others.txt").write_text("\ufeffmake it red\n\n make it blue \n", "utf-8")
    assert found(instructions=str(tmp_path / "others.txt")) == ("make it red", "make it blue")
    (tmp_path / "others.txt").write_text("\n")
    with pytest.raises(RecipeError, match="is empty"):
        found(instructions=str(tmp_path / "others.txt"))


def test_views_cover_crops_flips_and_colours(tmp_path: Path, base: Base) -> None:
    recipe = toy_recipe(tmp_path, pairs={"flip": True, "crops": 3, "recolored": 4})
    pairs = plan_run(recipe, lambda _: None).pairs()
    views = views_of(pairs, recipe, base)
    assert len(views) == len({repr(view) for view in views}) == 3 * 3 * 2 * 5
    assert len({view.other_colors for view in views}) == 3 * 4 + 1
    assert {view.size for view in views} == {(32, 32)}


def test_a_base_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the hub every look asks for the newest snapshot again."""
    names, real = list[str](), check.resolve_base

    def look(name: str, *rest: Any) -> Base:
        names.append(name)
        return real(name, *rest)

    monkeypatch.setattr(check, "resolve_base", look)
    recipe = toy_recipe(tmp_path)
    checked = check.check_recipe(recipe)
    assert plan_run(recipe, lambda _: None, checked).base is checked.base
    assert len(names) == 1
    plan_run(recipe, lambda _: None)
    assert names == [recipe.base.name] * 2


def test_what_shapes_training_is_told_apart_from_what_does_not(tmp_path: Path) -> None:
    def facts(**changes: object) -> dict[str, object]:
        return shaping_facts(plan_run(toy_recipe(tmp_path, **changes), lambda _: None))

    first = facts()
    assert json.loads(json.dumps(first)) == first
    assert first == facts(
        output="elsewhere", save={"every": 9}, preview={"every": 3}, train={"compile": True}
    )
    (tmp_path / "pairs").rename(tmp_path / "moved")
    moved = [
        {
            "name": "my_dog",
            "word": "<my-dog>",
            "initializer": "dog",
            "pairs": str(tmp_path / "moved"),
        }
    ]
    assert first == facts(concepts=moved)
    for changes in (
        {"train": {"seed": 1}},
        {"pairs": {"crops": 2}},
        {"preservation": {"share": 0.1}},
    ):
        assert first != facts(concepts=moved, **changes)


def test_previews_take_turns_between_concepts(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    look = toy_pairs(tmp_path / "look", first_seed=200, text="make it blue")
    concepts = [recipe.concepts[0].model_dump(), {"name": "look", "pairs": str(look)}]
    recipe = toy_recipe(
        tmp_path, concepts=concepts, preview={"count": 3, "images": str(tmp_path / "unseen")}
    )
    shown = choose_shown(plan_run(recipe, lambda _: None))
    assert [(item.example.instruction, item.held_out) for item in shown] == [
        ("add <my-dog>", False),
        ("make it blue", False),
        ("add <my-dog>", False),
        *[("add <my-dog>", True)] * 3,
    ]
    assert all(item.has_target for item in shown)


@pytest.mark.parametrize(
    ("own", "wanted", "taken"),
    [
        (None, None, (20, "DPMSolverMultistepScheduler")),  # the paper's 100
        (12, None, (12, "DDIMScheduler")),
        (None, 3, (3, "DDIMScheduler")),
    ],
)
def test_previews_make_do_with_few_steps(
    tmp_path: Path,
    own: int | None,
    wanted: int | None,
    taken: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = toy_recipe(tmp_path, preview={"every": 1, "steps": wanted, "count": 1})
    if own is not None:
        edit = {"steps": own, "text_guidance": 7.5, "image_guidance": 1.5}
        (tmp_path / "base/customize.json").write_text(json.dumps({"edit": edit}))
    plan, calls = plan_run(recipe, lambda _: None), list[int]()
    family, used = open_family(plan.base), list[str]()
    real = previews.scheduler_for

    def note(*asked: Any) -> Any:
        made = real(*asked)
        used.append(type(made).__name__)
        return made

    monkeypatch.setattr(previews, "scheduler_for", note)
    family.denoiser.register_forward_hook(lambda *_: calls.append(1))
    sampling, scheduler = choose_sampling(plan)
    device, shown = torch.device("cpu"), choose_shown(plan)
    attached = attach(family, LowRank(rank=2))
    made = previews.Previewer(
        plan.base, family, attached, shown, sampling, device=device, scheduler=scheduler
    ).make()
    assert made.sheet.width > 5 * 192
    assert (len(calls) / 2, used[0]) == taken  # before and after


def test_held_out_pictures_alone_take_the_trained_instructions(tmp_path: Path) -> None:
    toy_pairs(tmp_path / "pairs", count=3)
    trained = [Pair(Path("a"), text, Path("b")) for text in ("make it red", "add hat")]
    found = held_out_pairs(tmp_path / "pairs" / "s", trained)
    assert [pair.instruction for pair in found] == ["make it red", "add hat", "make it red"]
    assert all(pair.source == pair.target for pair in found)
    assert len(held_out_pairs(tmp_path / "pairs", trained)) == 3


def test_the_curve_falls_where_the_loss_falls() -> None:
    pixels_HWC = np.asarray(loss_curve(np.linspace(1.0, 0.1, 200).tolist()))
    line_YX = (pixels_HWC == (0xC2, 0x41, 0x0C)).all(2)
    heights = [np.flatnonzero(line_YX[:, x]).mean() for x in (100, 400, 800)]
    assert heights == sorted(heights)
    assert heights[2] - heights[0] > 200
    assert loss_curve([0.5]).size == (960, 480)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"preview": {"images": "torn"}}, "damaged or cut short"),
        ({"preview": {"images": "unequal"}}, "different shapes"),
        ({"preview": {"images": "nothing"}}, "an empty folder"),
        ({"preview": {"images": "torn/1.png"}}, "one picture, not a set of pairs"),
        ({"preservation": {"instructions": "empty.txt"}}, "is empty"),
        (
            {"preservation": {"regularization_pairs": "unequal", "regularization_share": 0.2}},
            "different shapes",
        ),
    ],
)
def test_what_is_read_beside_the_pairs_is_checked_before_anything_is_made(
    changes: dict[str, dict[str, str]], found: str, tmp_path: Path
) -> None:
    put(tmp_path / "torn" / "1.png", put(tmp_path / "whole.png", 1).read_bytes()[:300])
    (tmp_path / "nothing").mkdir()
    put(tmp_path / "empty.txt", "\n")
    ours(tmp_path / "unequal")
    put(tmp_path / "unequal" / "t" / "0.png", scene(1, (40, 90)))
    placed = {
        section: {k: str(tmp_path / v) if isinstance(v, str) else v for k, v in fields.items()}
        for section, fields in changes.items()
    }
    faults = check.check_recipe(toy_recipe(tmp_path, **placed)).faults
    assert [f for f in faults if f.level == "error" and found in f.found], faults
