"""Whole runs on a toy FLUX.2 klein: trained, stopped, resumed, shown, refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import shake
from builders.klein import klein_recipe, toy_klein
from builders.pairs import put, put_rows, scene
from builders.runs import toy_pairs, toy_recipe
from PIL import Image
from safetensors.torch import load_file
from test_run import after_step, equal, run

from customize import families
from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.apply import apply_adapters
from customize.adapters.file import AdapterFile, read_adapter
from customize.adapters.header import Header
from customize.editing import Editor
from customize.editing.folders.items import Item
from customize.editing.folders.plan import How
from customize.errors import BaseModelError, EditError, Fault, PairsError
from customize.families.base import resolve_base
from customize.scoring.edits.make import make_edits
from customize.scoring.edits.requests import read_asked
from customize.scoring.edits.variants import compared
from customize.training import open_session
from customize.training.check import check_recipe


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole run that nothing disturbed, and what it said."""
    folder = tmp_path_factory.mktemp("klein_run")
    said: list[str] = []
    assert run(klein_recipe(folder), log=said.append).finished
    (folder / "said.txt").write_text("\n".join(said))
    return folder


def test_a_run_teaches_plain_text_and_says_so(unbroken: Path) -> None:
    said = (unbroken / "said.txt").read_text()
    assert "<my-dog> becomes the plain text 'my-dog'; write 'my-dog' in instructions" in said
    adapter = read_adapter(unbroken / "run" / "adapter.safetensors")
    assert (adapter.header.family, adapter.header.targets) == ("flux2_klein", ("all",))
    (taught,) = adapter.header.concepts
    assert (taught.word, taught.instructions) == (None, ("add my-dog",))
    assert not [name for name in adapter.tensors if name.startswith("words.")]
    blocks = {name.split(".")[1] for name in adapter.tensors}
    assert blocks == {"transformer_blocks", "single_transformer_blocks"}


def test_stopped_and_gone_on_it_ends_bit_identical(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(step: int) -> None:
        if step == 5:
            raise KeyError("killed")

    recipe = klein_recipe(tmp_path, save={"every": 2})
    with monkeypatch.context() as patch:
        after_step(patch, kill)
        with pytest.raises(KeyError, match="killed"):
            run(recipe)
    said: list[str] = []
    run(recipe, log=said.append)
    assert "going on after step 4 of 6" in said
    whole = tmp_path / "run" / "adapter.safetensors"
    assert equal(whole, unbroken / "run" / "adapter.safetensors")


def test_an_edit_with_the_adapter_differs_and_is_undone_exactly(unbroken: Path) -> None:
    editor = Editor.from_base(str(unbroken / "base"), device="cpu")
    asked: dict[str, Any] = {"steps": 2, "seed": 3}
    before = editor.edit(scene(4, (80, 64)), "add my-dog", **asked).image
    changed = editor.load(unbroken / "run" / "adapter.safetensors", 3.0)
    after = changed.edit(scene(4, (80, 64)), "add my-dog", **asked).image
    assert before.size == after.size == (80, 64)
    assert not np.array_equal(np.array(before), np.array(after))
    undone = editor.unload().edit(scene(4, (80, 64)), "add my-dog", **asked).image
    assert np.array_equal(np.array(before), np.array(undone))


def test_a_chain_keeps_what_an_edit_leaves_alone(unbroken: Path) -> None:
    editor = Editor.from_base(str(unbroken / "base"), device="cpu")
    stages = editor.chain(scene(4, (80, 64)), ["make it red", "paint it"], steps=1)
    apart = editor.chain(scene(4, (80, 64)), ["make it red"], steps=1, keep_unchanged=False)
    assert [stage.settings.keep_unchanged for stage in (*stages, *apart)] == [True, True, False]
    assert np.isfinite(np.array(stages[1].image)).all()


def test_a_folder_is_edited_each_by_itself(unbroken: Path, tmp_path: Path) -> None:
    editor = Editor.from_base(str(unbroken / "base"), device="cpu")
    items = [Item(put(tmp_path / f"{n}.png", n), ("make it red",), place=f"{n}") for n in (1, 2, 3)]
    answers = list(editor.edit_many(items, How(), at_once=2, steps=1))
    edits = [edited for _, edited in answers if not isinstance(edited, Fault)]
    assert len(edits) == 3
    assert len({edited.image.tobytes() for edited in edits}) == 3
    for how in (How(tiles=True), How(fast=True)):
        with pytest.raises(EditError, match="whose steps are its pipeline's own"):
            list(editor.edit_many(items, how, steps=1))


def test_several_edits_at_once_are_those_alone(unbroken: Path) -> None:
    editor = Editor.from_base(str(unbroken / "base"), device="cpu")
    pictures, texts = [scene(seed, (80, 64)) for seed in (4, 5)], ["make it red", "paint it"]
    together = editor.batch(pictures, texts, steps=2)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        alone = editor.edit(picture, text, steps=2, seed=index).image
        difference = np.abs(np.array(alone, int) - np.array(together[index].image, int))
        assert difference.max() <= 1


@pytest.mark.parametrize(
    "method",
    [
        LowRank(rank=2, targets=("attention",)),
        LowRank(rank=2, targets=("feed_forward",), decompose=True),
        LowRank(rank=2, alpha=4.0, targets=("all",)),
        CrossAttentionKV(),
    ],
)
def test_an_adapter_on_the_pipeline_is_the_one_trained(unbroken: Path, method: Method) -> None:
    base = resolve_base(str(unbroken / "base"))
    family = families.open_family(base)
    attached = attach(family, method)
    shake(attached, size=0.2)
    generator = torch.Generator().manual_seed(0)
    conditions = {
        "source": torch.randn(1, 16, 4, 4, generator=generator),
        "text": torch.randn(1, 20, 96, generator=generator),
    }
    noisy, level = torch.randn(1, 16, 4, 4, generator=generator), torch.tensor([0.7])
    plain = families.open_family(base)
    pipeline = families.open_pipeline(base, denoiser=plain.denoiser)
    low_rank = method if isinstance(method, LowRank) else None
    header = Header(
        family="flux2_klein",
        base_name="toy",
        base_fingerprint=base.fingerprint,
        method="low_rank" if low_rank else "cross_attention_kv",
        rank=low_rank.rank if low_rank else None,
        alpha=low_rank.alpha if low_rank else None,
        decompose=bool(low_rank and low_rank.decompose),
    )
    with torch.no_grad():
        wanted = family.predict(noisy, level, conditions)
        without = plain.predict(noisy, level, conditions)
        apply_adapters(pipeline, [(AdapterFile(header, attached.state()), 1.0)])
        applied = plain.predict(noisy, level, conditions)
    assert torch.allclose(applied, wanted, atol=1e-5)
    assert (applied - without).abs().max() > 1e-3


def test_pairs_of_several_sources_train_and_are_shown(tmp_path: Path) -> None:
    klein_recipe(tmp_path)
    for number in range(3):
        for name, size in (("a", (100, 70)), ("b", (64, 96))):
            scene(90 + number, size).save(tmp_path / "pairs" / f"{name}{number}.png")
    rows = [
        {
            "source": [f"s/{n}.png", f"a{n}.png", f"b{n}.png"][: 3 - n],
            "instruction": "add the thing",
            "edited": f"t/{n}.png",
        }
        for n in range(3)
    ]
    put_rows(tmp_path / "pairs" / "pairs.jsonl", *rows)
    recipe = klein_recipe(tmp_path, preview={"every": 6}, concepts=[_concept(tmp_path)])
    assert run(recipe).finished
    cached = [load_file(path) for path in (tmp_path / "run" / "cache").glob("*.safetensors")]
    sizes = {
        tuple(tensors[name].shape[1:])
        for tensors in cached
        for name in tensors
        if "source_" in name
    }
    assert sizes == {(4, 6), (6, 4)}
    (sheet,) = (tmp_path / "run" / "previews").glob("*.png")
    assert Image.open(sheet).width > 300


def test_an_edit_looks_at_further_sources(unbroken: Path) -> None:
    editor = Editor.from_base(str(unbroken / "base"), device="cpu")
    source, others = scene(4, (64, 64)), [scene(5, (96, 70)), scene(6, (64, 64))]
    alone = editor.edit(source, "make it red", steps=1)
    edited = editor.edit(source, "make it red", further=others, steps=1)
    assert (alone.settings.further_sources, edited.settings.further_sources) == (0, 2)
    assert "Further sources: 2" in edited.settings.as_parameters()
    (asked,) = editor.batch([source], ["make it red"], further=[others], steps=1)
    assert np.array_equal(np.array(asked.image), np.array(edited.image))
    with torch.no_grad():
        given = {"generator": torch.Generator().manual_seed(0), "output_type": "np"}
        own = editor.pipeline(
            prompt="make it red",
            image=[source, *others],
            height=64,
            width=64,
            num_inference_steps=1,
            guidance_scale=edited.settings.text_guidance,
            text_encoder_out_layers=(1, 2, 3),
            **given,
        ).images[0]
    assert np.abs(np.array(edited.image) / 255.0 - own).max() <= 1 / 255
    assert not np.array_equal(np.array(alone.image), np.array(edited.image))


def test_pairs_of_several_sources_are_scored(unbroken: Path, tmp_path: Path) -> None:
    toy_pairs(tmp_path / "pairs", count=2, size=(64, 64))
    sources = [["s/0.png", "s/1.png"], ["s/1.png"]]
    rows = [
        {"source": sources[n], "instruction": "make it red", "edited": f"t/{n}.png"}
        for n in range(2)
    ]
    put_rows(tmp_path / "pairs" / "pairs.jsonl", *rows)
    tasks = read_asked(str(tmp_path / "pairs")).tasks
    assert [len(task.further_sources) for task in tasks] == [1, 0]
    (variant,) = compared([str(unbroken / "base")], [])
    made = make_edits([variant], tasks, {"steps": 1}, tmp_path / "edits", device="cpu")
    first, _ = made[variant.label]
    edited = Editor.from_base(variant.base, device="cpu").edit(
        scene(0, (64, 64)), "make it red", further=[scene(1, (64, 64))], steps=1
    )
    assert isinstance(first.output, Path)
    assert np.array_equal(np.array(Image.open(first.output)), np.array(edited.image))
    (elsewhere,) = compared(["embedded"], [])
    with pytest.raises(EditError, match="2 source pictures: the base 'embedded' reads one"):
        make_edits([elsewhere], tasks, {}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def _concept(folder: Path, **fields: Any) -> dict[str, Any]:
    return {"name": "thing", "pairs": str(folder / "pairs"), **fields}


# --- what is refused, and what is said


def test_a_broken_picture_among_several_sources_is_named(tmp_path: Path) -> None:
    klein_recipe(tmp_path)
    (tmp_path / "pairs" / "broken.png").write_bytes(b"no picture")
    sources = ["s/0.png", "s/1.png", "broken.png"]
    rows = [{"source": sources, "instruction": "x", "edited": "t/0.png"} for _ in range(3)]
    put_rows(tmp_path / "pairs" / "pairs.jsonl", *rows)
    with pytest.raises(PairsError) as caught:
        run(klein_recipe(tmp_path, concepts=[_concept(tmp_path)]))
    assert str(caught.value).count("broken.png") == 1
    missing = [{**rows[0], "source": ["s/0.png", "gone.png"]}]
    put_rows(tmp_path / "pairs" / "pairs.jsonl", *missing)
    with pytest.raises(PairsError, match=r"pairs.jsonl:1.*gone.png"):
        run(klein_recipe(tmp_path, concepts=[_concept(tmp_path)]))


def test_training_on_the_distilled_one_is_refused_with_the_reason(tmp_path: Path) -> None:
    toy_klein(tmp_path / "four_steps", distilled=True)
    recipe = klein_recipe(tmp_path, base={"name": str(tmp_path / "four_steps")})
    with pytest.raises(BaseModelError) as caught:
        run(recipe)
    assert "grey pictures" in str(caught.value)
    assert "edit with the adapter on this one" in str(caught.value)
    (fault,) = [f for f in check_recipe(recipe).faults if f.level == "error"]
    assert (fault.place, fault.cure) == ("base", caught.value.cure)
    edited = Editor.from_base(str(tmp_path / "four_steps"), device="cpu").edit(
        scene(1, (64, 64)), "x"
    )
    assert (edited.settings.steps, edited.settings.text_guidance) == (4, 1.0)


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "min_snr": ({"train": {"min_snr": 5.0}}, "error", "train.min_snr"),
    "text encoder": (
        {"adapter": {"method": "low_rank", "text_encoder": True}},
        "error",
        "adapter.text_encoder",
    ),
    "hidden source": (
        {"conditioning_dropout": {"image": 0.1}},
        "warning",
        "conditioning_dropout.image",
    ),
    "image guidance": ({"preview": {"image_guidance": 2.0}}, "warning", "preview.image_guidance"),
    "word's rate": ({"train": {"word_learning_rate": 1e-3}}, "warning", "train.word_learning_rate"),
    "keys and values": (
        {"adapter": {"method": "cross_attention_kv"}},
        "warning",
        "adapter.method",
    ),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_what_the_family_cannot_do_is_said(tmp_path: Path, kind: str) -> None:
    changes, level, place = IMPOSSIBLE[kind]
    faults = check_recipe(klein_recipe(tmp_path, **changes)).faults
    (fault,) = [fault for fault in faults if fault.place == place]
    assert fault.level == level


def test_levels_are_for_flow_matching_alone(tmp_path: Path) -> None:
    faults = check_recipe(toy_recipe(tmp_path, train={"levels": "shift"})).faults
    (fault,) = [fault for fault in faults if fault.place == "train.levels"]
    assert (fault.level, fault.cure) == ("error", "set it to null")


def test_the_larger_ones_licence_is_said(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = replace(resolve_base(str(unbroken / "base")), notice="no commercial use")
    monkeypatch.setattr("customize.families.base.resolve_base", lambda *_: base)
    with pytest.warns(UserWarning, match="no commercial use"):
        Editor.from_base(base.name, device="cpu")
    faults = check_recipe(klein_recipe(unbroken), base).faults
    assert [fault.level for fault in faults if fault.found == "no commercial use"] == ["warning"]


def test_levels_follow_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[Any]()

    def attach_instead(live: Any, *_: Any, **__: Any) -> Any:
        opened.append(live.objective.levels)
        raise KeyError("stop")

    monkeypatch.setattr(open_session, "attach", attach_instead)
    for levels in ("uniform", "logit_normal", None):
        with pytest.raises(KeyError, match="stop"):
            run(klein_recipe(tmp_path, train={"levels": levels}), overwrite=True)
    assert opened == ["uniform", "logit_normal", "shift"]


def test_settings_without_effect_are_said_when_editing(unbroken: Path) -> None:
    editor = Editor.from_base(str(unbroken / "base"), device="cpu")
    with pytest.warns(UserWarning, match="image_guidance has no effect"):
        editor.edit(scene(1, (64, 64)), "make it red", steps=1, image_guidance=2.0)
    with pytest.raises(EditError, match="expected the base's own"):
        editor.edit(scene(1, (64, 64)), "make it red", scheduler="ddim")
    facts = json.loads((unbroken / "base" / "model_index.json").read_text())
    assert facts["is_distilled"] is False
