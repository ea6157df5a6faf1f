"""Merges judged by edits: regression and auto on a toy base, trials, retention, leaks, report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_example
from builders.merges import judged_world
from PIL import Image

from customize.adapters.deltas import layers, weight_delta
from customize.adapters.file import AdapterFile, read_adapter
from customize.editing.sample import sample
from customize.errors import OutputExistsError, PairsError
from customize.families.base import resolve_base
from customize.merging.by_edits.choose import ENOUGH, Tried, best_of, merge_automatically
from customize.merging.by_edits.editing_job import EditingJob, open_editing_job
from customize.merging.by_edits.layer_inputs import Evidence
from customize.merging.by_edits.leaks import OWN, leak
from customize.merging.by_edits.more_views import with_more_views
from customize.merging.by_edits.regression import merge_by_regression
from customize.merging.by_edits.report import FIGURES, MAP, SHEET, check_folder, write_merge_report
from customize.merging.by_edits.retention import (
    Judge,
    Kept,
    Retention,
    change_made,
    kept_of,
    kept_of_base,
)
from customize.merging.by_edits.trial_edits import (
    TrialEdits,
    find_asked,
    own_edits,
    requests_of,
    varied,
)
from customize.merging.job import open_job
from customize.shapes import Example


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = judged_world(tmp_path_factory.mktemp("world"))
    with chdir(folder):  # of an adapter's places only those in the working folder are followed
        yield folder


@pytest.fixture(scope="module")
def stage(world: Path) -> EditingJob:
    files = [world / "my_dog.safetensors", world / "look.safetensors"]
    return open_editing_job(open_job(files), {}, device="cpu", most=2, least=2)


@pytest.fixture(scope="module")
def judge(stage: EditingJob) -> Judge:
    return stage.judge()


def test_trials_come_from_the_recipe_and_held_out_ones_where_there_are_some(
    stage: EditingJob,
) -> None:
    assert [(a.name, a.owner, len(a.examples), a.held_out) for a in stage.trained] == [
        ("my_dog", 0, 2, False),
        ("look", 1, 2, False),
    ]
    assert all(asked.held_out for asked in stage.judged)
    sources = {e.source_HWC.tobytes() for asked in stage.trained for e in asked.examples}
    assert not any(e.source_HWC.tobytes() in sources for a in stage.judged for e in a.examples)
    assert {edit.instruction for edit in stage.own} == {
        "make it red",
        "paint it blue",
        "add the hat",
    }


def test_pairs_can_be_named_and_what_is_missing_is_said_at_once(
    world: Path, stage: EditingJob
) -> None:
    headers = [item.header for item in stage.job.inputs]
    base = resolve_base(str(world / "base"))
    given = find_asked(headers, {"look": world / "my_dog"}, base, held_out=True, most=3)
    assert [example.instruction for example in given[1].examples] == ["add <my-dog>"] * 3
    lost = [replace(header, recipe={}) for header in headers]
    with pytest.raises(PairsError) as error:
        find_asked(lost, {"cat": world / "my_dog"}, base, held_out=True)
    places = [fault.place for fault in error.value.faults]
    assert places == ["--pairs cat", "concept my_dog", "concept look"]
    assert "--pairs my_dog=FOLDER" in str(error.value)
    with pytest.raises(PairsError, match="nowhere"):
        find_asked(headers, {"look": world / "nowhere"}, base, held_out=True)


def test_previews_of_plain_pictures_give_way_to_the_trained_pairs(
    world: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.png")
    header = read_adapter(world / "look.safetensors").header
    header = replace(header, recipe={**header.recipe, "preview": {"images": str(tmp_path)}})
    base = resolve_base(str(world / "base"))
    (asked,) = find_asked([header], {}, base, held_out=True)
    assert len(asked.examples) == 3
    assert not asked.held_out


def test_two_adapters_of_one_concept_are_two_in_every_table(world: Path) -> None:
    header, base = (
        read_adapter(world / "look.safetensors").header,
        resolve_base(str(world / "base")),
    )
    asked = find_asked([header, header], {}, base, held_out=False)
    assert [one.name for one in asked] == ["look", "look_2"]
    assert len(own_edits(asked, [f"edit {n}" for n in range(30)], 10)) == 10


def test_evidence_is_taken_on_more_sources_than_an_adapters_own(stage: EditingJob) -> None:
    asked, look = varied(stage.trained, 1), stage.trained[1].examples
    assert {example.instruction for example in asked} == {"make it night"}
    assert asked[:2] == list(look)
    assert np.array_equal(asked[2].source_HWC, look[0].source_HWC[:, ::-1])
    foreign = {example.source_HWC.tobytes() for example in stage.trained[0].examples}
    assert {example.source_HWC.tobytes() for example in asked[4:]} == foreign
    assert len(varied(stage.trained, 1, most=3)) == 3


def test_edits_do_not_depend_on_how_many_are_made_at_once(stage: EditingJob) -> None:
    asked = requests_of([example for asked in stage.judged for example in asked.examples])
    one = sample(stage.pipeline, asked, stage.sampling, at_once=1)
    four = sample(stage.pipeline, asked, stage.sampling, at_once=4)
    assert len(one) == len(asked) == 4
    for single, several in zip(one, four, strict=True):
        assert np.allclose(single, several, atol=1e-4)


def test_the_change_made_is_one_at_the_target_and_none_at_the_source() -> None:
    source, target = np.zeros((2, 2, 3)), np.ones((2, 2, 3))
    assert change_made(target, source, target) == 1
    assert change_made(source, source, target) == 0
    assert change_made(source - 1, source, target) == 0, "worse than nothing counts as nothing"
    assert change_made((source + target) / 2, source, target) == pytest.approx(0.75)


def test_edits_that_the_base_does_not_make_do_not_count() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    examples = [Example(black, black, "paint it"), Example(black, black, "change nothing")]
    before, after = [np.ones((4, 4, 3)), black / 255], [np.ones((4, 4, 3)), np.ones((4, 4, 3))]
    assert kept_of_base(examples, before, after) == 1
    assert kept_of_base(examples[1:], before[1:], after[1:]) is None


def test_an_adapter_merged_alone_keeps_all_of_its_concept(world: Path, judge: Judge) -> None:
    adapter = read_adapter(world / "my_dog.safetensors")
    alone = judge.alone(0, judge.asked[0])
    verdict = Judge(judge.pipeline, judge.sampling, [adapter], judge.asked[:1], judge.own).judge(
        adapter
    )
    for one, again in zip(alone, verdict.outputs["my_dog"], strict=True):
        assert np.array_equal(one, again)
    kept = verdict.concepts["my_dog"]
    assert kept.alone == kept.merged


def test_a_concept_of_few_pairs_is_judged_by_views_of_them() -> None:
    examples = tuple(toy_example(seed, "make it red") for seed in range(3))
    asked = with_more_views(TrialEdits("a", 0, examples), 16)
    assert len(asked.examples) == 16
    assert asked.examples[:3] == examples
    assert [asked.pair_of.count(pair) for pair in range(3)] == [6, 5, 5]
    mirrored = asked.examples[3]
    assert (mirrored.source_HWC == examples[0].source_HWC[:, ::-1]).all()
    assert (mirrored.target_HWC == examples[0].target_HWC[:, ::-1]).all()
    brighter = asked.examples[6 + asked.pair_of[6:].index(0)]
    assert brighter.source_HWC.mean() > examples[0].source_HWC.mean()
    assert brighter.target_HWC.mean() > examples[0].target_HWC.mean()
    assert brighter.source_HWC.dtype == np.uint8
    sided = TrialEdits("b", 0, (toy_example(0, "paint the left one"),))
    assert len(with_more_views(sided, 16).examples) == 5
    assert len({e.source_HWC.tobytes() for e in asked.examples}) == 16


def test_intervals_hold_the_truth_and_count_pairs_not_views() -> None:
    rng = np.random.default_rng(0)
    source, target = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    example = Example(source, target, "make it white")
    alone = [np.full((4, 4, 3), 1 - np.sqrt(1 - 0.8))] * 12
    asked, merged, hits = TrialEdits("a", 0, (example,) * 12), list[np.ndarray](), 0
    for _ in range(40):
        made = 1 - np.sqrt(1 - rng.normal(0.6, 0.15, 12).clip(0.05, 0.95))
        merged = [np.full((4, 4, 3), m) for m in made]
        kept = kept_of(asked, alone, merged)
        assert kept.interval is not None
        low, high = kept.interval
        hits += low <= 0.75 <= high
    assert hits >= 34
    narrow = kept_of(asked, alone, merged).interval
    of_three = replace(asked, pair_of=(0,) * 4 + (1,) * 4 + (2,) * 4)
    assert kept_of(of_three, alone, merged).interval != narrow
    assert kept_of(replace(asked, pair_of=(0,) * 12), alone, merged).interval is None


def test_retention_is_merged_over_alone_where_something_was_learned() -> None:
    assert Kept(0.8, 0.6).retention == pytest.approx(0.75)
    assert Kept(0.01, 0.6).retention is None
    assert Retention(
        {"a": Kept(0.8, 0.6), "b": Kept(0.5, 0.5)}, 1.0, {}, []
    ).worst == pytest.approx(0.75)
    assert Retention({"a": Kept(0.0, 0.6)}, 1.0, {}, []).worst == 0


def test_the_best_keeps_its_worst_concept_best_among_those_that_spare_the_base() -> None:
    def tried(name: str, worst: float, base: float | None) -> Tried:
        verdict = Retention({"a": Kept(1, 1), "b": Kept(1, worst)}, base, {}, [])
        nothing: Any = None  # what was written does not matter here
        return Tried(name, nothing, verdict)

    gentle, strong, wild = (
        tried("gentle", 0.7, 0.97),
        tried("strong", 0.9, 0.9),
        tried("wild", 1, 0.5),
    )
    assert best_of([gentle, strong, wild], [0.95, 0.93]).name == "strong"
    assert best_of([gentle, strong, wild], [1.0, 1.0]).name == "gentle"
    assert best_of([strong, wild], [1.0, None]).name == "strong", "none spares it: the product"
    assert best_of([tried("no", 0.2, None), tried("edits", 0.3, None)], [None]).name == "edits"


def test_a_leak_is_the_share_of_the_other_change() -> None:
    random = np.random.default_rng(0)
    source = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    example, other = Example(source, source, ""), random.random((8, 8, 3))
    alone = random.random((8, 8, 3))
    merged = alone + 0.25 * (other - source / 255)
    assert leak([example], [alone], [merged], [other]) == pytest.approx(0.25)
    assert leak([example], [alone], [alone], [other]) == 0
    assert leak([example], [alone], [merged], [source / 255 + 0.001]) is None


def test_regression_writes_what_the_solver_gives_and_misses_less_than_addition(
    stage: EditingJob, tmp_path: Path
) -> None:
    evidence = stage.evidence()
    merged = merge_by_regression(
        stage, tmp_path / "m.safetensors", evidence=evidence, preserve=0.0, ridge=1e-4
    )
    adapter = read_adapter(merged.path)
    assert adapter.header.method == "merged"
    assert adapter.header.training["merged_by"] == "regression"
    assert [taught.name for taught in adapter.header.concepts] == ["my_dog", "look"]
    assert set(layers(adapter)) == {layer.name for layer in stage.job.layers()}
    assert merged.otherwise == ()
    squares = {"regression": 0.0, "addition": 0.0}
    for layer in stage.job.layers():
        deltas = [
            layer.delta(item) if item in layer.inputs else torch.zeros(layer.shape)
            for item in stage.job.inputs
        ]
        found = weight_delta(adapter, layer.name, torch.zeros(layer.shape))
        for moment, delta in zip(evidence.of(layer.name).own, deltas, strict=True):
            for way, change in (("regression", found), ("addition", sum(deltas))):
                off = (change - delta).flatten(1)
                squares[way] += float(((off @ moment.float()) * off).sum())
    assert 0 < squares["regression"] < 0.5 * squares["addition"]
    with pytest.raises(OutputExistsError):
        merge_by_regression(stage, merged.path)


def test_evidence_in_small_groups_is_that_of_one_group(stage: EditingJob) -> None:
    adapters = [item.adapter for item in stage.job.inputs]
    names = [layer.name for layer in stage.job.layers()][:5]

    def evidence(most_bytes: int) -> Evidence:
        return Evidence(
            *(stage.pipeline, stage.sampling, adapters, stage.trained, stage.generic, names),
            most_bytes=most_bytes,
        )

    whole, single = evidence(1 << 30), evidence(1)
    assert whole.layers == single.layers == set(names)
    for name in names:
        one, other = whole.of(name), single.of(name)
        assert one.generic.trace() > 0
        assert one.generic.shape == other.own[0].shape
        assert torch.allclose(one.own[0].trace(), other.own[0].trace(), rtol=0.3)


def test_auto_tries_what_fits_and_writes_the_best(
    stage: EditingJob, judge: Judge, tmp_path: Path
) -> None:
    said = list[str]()
    output = tmp_path / "auto.safetensors"
    chosen = merge_automatically(stage, judge, output, log=said.append)
    names = [tried.name for tried in chosen.tried]
    assert names[:6] == ["linear", "average", "ties", "dare", "constrained", "regression"]
    behind = best_of(chosen.tried[:6], judge.kept_alone()).verdict.worst < ENOUGH
    assert names[6:] == ["distill"] * behind
    assert chosen.merged.path == output
    assert [path.name for path in tmp_path.iterdir()] == ["auto.safetensors"]
    assert chosen.best in chosen.tried
    again = judge.judge(read_adapter(output), chosen.merged.renamed)
    assert again.concepts == chosen.best.verdict.concepts
    assert said[-1].startswith(f"chosen: {chosen.best.name}")
    assert len(said) == len(names) + 1


def test_a_report_holds_figures_a_sheet_and_a_map(
    stage: EditingJob, judge: Judge, world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "report"
    check_folder(folder, [], overwrite=False)
    merged = read_adapter(world / "look.safetensors")
    words = read_adapter(world / "my_dog.safetensors").tensors
    rows = {name: words[name] for name in words if name.startswith("words.")}
    verdict = judge.judge(AdapterFile(merged.header, {**dict(merged.tensors), **rows}))
    files = [Path("runs/x/adapter.safetensors"), Path("also/x/adapter.safetensors")]
    with write_merge_report(folder, judge, verdict, files, {"method": "look alone"}) as text:
        pass
    figures: Mapping[str, Any] = json.loads((folder / FIGURES).read_text())
    assert figures["method"] == "look alone"
    assert figures["concepts"]["look"]["alone"] == figures["concepts"]["look"]["merged"]
    assert figures["concepts"]["my_dog"]["adapter"] == "x"
    assert figures["concepts"]["look"]["adapter"] == "x (2)"
    assert set(figures["concepts"]["my_dog"]["leaks_in"]) == {"look"}
    assert set(figures["base"]["leaks_in"]) == {"my_dog", "look"}
    assert set(figures["base"]["kept_alone"]) == {"x", "x (2)"}
    assert figures["base"]["kept_merged"] == pytest.approx(figures["base"]["kept_alone"]["x (2)"])
    with Image.open(folder / SHEET) as sheet, Image.open(folder / MAP) as drawn:
        assert sheet.height > sheet.width / 2
        assert drawn.width > 400
    assert OWN in text
    assert len(text.splitlines()) >= 4
    with pytest.raises(OutputExistsError):
        check_folder(folder, files, overwrite=False)
    check_folder(folder, files, overwrite=True)


def test_renamed_words_are_said_as_the_merge_knows_them(judge: Judge) -> None:
    first = judge.asked[0]
    loud = (replace(one, instruction="Add <My-Dog>") for one in first.examples)
    asked = replace(first, examples=tuple(loud))
    seen = list[str]()

    class Listening(Judge):
        def edit(
            self, adapter: AdapterFile | None, examples: Sequence[Example]
        ) -> list[np.ndarray]:
            seen.extend(example.instruction for example in examples)
            return [example.source_HWC / 255 for example in examples]

    listening = Listening(judge.pipeline, judge.sampling, judge.adapters, [asked], ())
    listening.judge(judge.adapters[0], [{"<my-dog>": "<my-dog-2>"}, {}])
    assert seen == ["Add <my-dog-2>"] * 2 + ["Add <My-Dog>"] * 2
