"""The drawn world: seeded, captioned, and with combinations kept for testing."""

from __future__ import annotations

import numpy as np
import pytest

from customize.embedded.world.colors import PALETTE, nearest_name
from customize.embedded.world.concepts import CONCEPT_NAMES, MARK_STAR, concept_pairs
from customize.embedded.world.edits import GLOBAL_KINDS, LOCAL_KINDS, random_edit, random_edits
from customize.embedded.world.held_out import is_held_out
from customize.embedded.world.looks import (
    COLORED_LOOKS,
    PLAIN_LOOKS,
    Look,
    UnknownLook,
    apply_look,
)
from customize.embedded.world.photos import TEST_PHOTOS, TRAINING_PHOTOS
from customize.embedded.world.random_scenes import random_scene
from customize.embedded.world.references import references
from customize.embedded.world.scene_changes import NamedChange, ThingChange, without_effect
from customize.embedded.world.scenes import draw_scene
from customize.embedded.world.things import THING_NAMES
from customize.embedded.world.wordings import WORDINGS

KINDS = (*GLOBAL_KINDS, *LOCAL_KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_the_same_for_the_same_seed_and_changes_the_picture(kind):
    one, again = random_edit((3, 5), kind=kind), random_edit((3, 5), kind=kind)
    assert one.instruction == again.instruction
    assert np.array_equal(one.target_HWC, again.target_HWC)
    assert one.source_HWC.shape == one.target_HWC.shape == (64, 64, 3)
    assert not np.array_equal(one.source_HWC, one.target_HWC)
    assert one.source_caption != one.target_caption
    assert random_edit((3, 6), kind=kind).instruction != "" != one.instruction


@pytest.mark.parametrize("kind", LOCAL_KINDS)
def test_a_local_edit_leaves_most_of_the_picture_alone(kind):
    for index in range(10):
        edit = random_edit((4, index), kind=kind)
        changed = np.any(edit.source_HWC != edit.target_HWC, axis=-1)
        assert changed.mean() < 0.6, edit.instruction


def test_keep_changes_nothing():
    edit = random_edit((1, 1), kind="keep")
    assert np.array_equal(edit.source_HWC, edit.target_HWC)


def test_training_never_draws_a_held_out_combination():
    held_out = [(t, c) for t in THING_NAMES for c in PALETTE if is_held_out(t, c)]
    assert 5 <= len(held_out) <= 20
    captions = []
    for index in range(400):
        edit = random_edit((8, index))
        assert not edit.held_out
        captions += [edit.source_caption, edit.target_caption]
    for thing, color in held_out:
        assert not any(f"{color} {thing}" in caption for caption in captions)


def test_testing_draws_held_out_combinations():
    drawn = [random_edit((8, index), test=True).held_out for index in range(200)]
    assert sum(drawn) >= 5


def test_test_photographs_are_not_training_photographs():
    assert not set(TEST_PHOTOS) & set(TRAINING_PHOTOS)


def test_recoloring_gives_the_named_color():
    hits = []
    for index in range(20):
        edit = random_edit((6, index), kind="background")
        upper = edit.target_HWC[:48].reshape(-1, 3)
        names = [nearest_name(pixel) for pixel in upper[:: len(upper) // 60]]
        hits.append(edit.color in names)
    assert all(hits)


def test_every_edit_has_several_wordings():
    assert len(WORDINGS) >= 20
    assert all(len(set(wordings)) >= 3 for wordings in WORDINGS.values())


@pytest.mark.parametrize("name", [*PLAIN_LOOKS, *COLORED_LOOKS])
def test_every_look_changes_a_photograph(name):
    colors = {"duotone": ("navy", "yellow")}.get(name, ("red",) if name in COLORED_LOOKS else ())
    pixels = random_edit((2, 2), kind="photo look").source_HWC
    look = Look(name, colors)
    changed = apply_look(pixels, look)
    assert changed.dtype == np.uint8
    assert np.abs(changed.astype(int) - pixels).mean() > 2
    assert all(color in look.phrase for color in colors)


@pytest.mark.parametrize("name", CONCEPT_NAMES)
def test_concept_pairs_for_testing_share_no_source_with_training(name):
    training, testing = concept_pairs(name, 4), concept_pairs(name, 8, test=True)
    sources = {edit.source_HWC.tobytes() for edit in (*training, *testing)}
    assert len(sources) == 12
    assert all(not np.array_equal(e.source_HWC, e.target_HWC) for e in (*training, *testing))


def test_the_mark_is_the_same_stamp_in_the_same_corner():
    for edit in concept_pairs("my_mark", 8, test=True):
        changed_HW = np.any(edit.source_HWC != edit.target_HWC, axis=-1)
        assert changed_HW[:26, :26].sum() == changed_HW.sum() > 300
        assert tuple(edit.target_HWC[14, 14]) == MARK_STAR


@pytest.mark.parametrize("kind", ["recolor", "remove", "replace"])
def test_a_scene_is_edited_once_for_each_of_its_things(kind):
    drawn = [random_edits((9, index), kind=kind) for index in range(40)]
    several = [edits for edits in drawn if len(edits) > 1]
    assert len(several) >= 15
    for edits in several:
        assert all(edit.source_HWC is edits[0].source_HWC for edit in edits)
        assert len({edit.instruction for edit in edits}) == len(edits)
        assert len({edit.target_HWC.tobytes() for edit in edits}) == len(edits)
    changes = [edit.change for edits in drawn for edit in edits]
    counts = [len(change.before.things) for change in changes if change is not None]
    assert {1, 2, 3} == set(counts)
    assert sum(count > 1 for count in counts) > 0.7 * len(counts)


def test_every_phrase_for_a_thing_means_that_thing_alone():
    rng, twins = np.random.default_rng(4), 0
    for _ in range(200):
        scene = random_scene(rng, twins=True)
        phrases = [references(scene, index) for index in range(len(scene.things))]
        assert all(phrases)
        everything = [phrase for each in phrases for phrase in each]
        assert len(everything) == len(set(everything))
        names = [thing.name for thing in scene.things]
        twins += len(set(names)) < len(names)
        bare = [index for index, each in enumerate(phrases) if each[0] == names[index]]
        assert all(names.count(names[index]) == 1 for index in bare)
    assert 10 <= twins <= 60


def test_outcomes_name_what_became_of_the_scene():
    change = ThingChange("remove")
    drawn = (random_edit((10, number), kind="remove") for number in range(100))
    edit = next(e for e in drawn if e.change is not None and len(e.change.before.things) == 2)
    assert isinstance(edit.change, NamedChange)
    scene, named = edit.change.before, edit.change.index
    outcomes = change.outcomes(scene, named)
    assert [verdict for verdict, _ in outcomes] == ["named", "nothing", "other", "both"]
    left = [[thing.name for thing in after.things] for _, after in outcomes]
    names = [thing.name for thing in scene.things]
    assert left == [[names[1 - named]], names, [names[named]], []]
    assert np.array_equal(draw_scene(outcomes[0][1]), edit.target_HWC)


def test_what_is_not_there_is_asked_for_in_vain():
    rng = np.random.default_rng(6)
    for _ in range(100):
        scene = random_scene(rng)
        change = without_effect(scene, rng)
        assert change.after is scene
        present = [phrase for i in range(len(scene.things)) for phrase in references(scene, i)]
        assert not [phrase for phrase in present if f"the {phrase} " in f"{change.instruction} "]


def test_an_unknown_look_is_the_same_before_and_after():
    rng = np.random.default_rng(8)
    look, scene = UnknownLook.random(rng), random_scene(rng)
    pixels = draw_scene(scene)
    assert np.array_equal(look.apply(pixels), look.apply(pixels.copy()))
    assert np.abs(look.apply(pixels).astype(int) - pixels).mean() > 5


@pytest.mark.parametrize("kind", [*KINDS, "keep"])
def test_twice_the_size_shows_the_same_edit(kind):
    small, large = random_edit((12, 1), kind=kind), random_edit((12, 1), kind=kind, size=128)
    assert small.instruction == large.instruction
    assert large.target_HWC.shape == (128, 128, 3)
    halved = large.target_HWC.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small.target_HWC).mean() < 6
