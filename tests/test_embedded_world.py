"""The drawn world: seeded, captioned, and with combinations kept for testing."""

from __future__ import annotations

import numpy as np
import pytest

from customize.embedded.world.colors import PALETTE, nearest_name
from customize.embedded.world.concepts import CONCEPT_NAMES, MARK_STAR, concept_pairs
from customize.embedded.world.edits import GLOBAL_KINDS, LOCAL_KINDS, random_edit
from customize.embedded.world.held_out import is_held_out
from customize.embedded.world.looks import COLORED_LOOKS, PLAIN_LOOKS, Look, apply_look
from customize.embedded.world.photos import TEST_PHOTOS, TRAINING_PHOTOS
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
