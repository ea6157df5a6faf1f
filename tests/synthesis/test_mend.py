"""What a base leaves of a look in the sources it makes is mended: frames and missing colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from customize.embedded.world.concepts import concept_pairs
from customize.synthesis.backward.mend import Frame, common_frame, with_random_colors, without_frame

FINISHED = [Image.fromarray(edit.target_HWC) for edit in concept_pairs("brand_style", 5)]
SOURCES = [Image.fromarray(edit.source_HWC) for edit in concept_pairs("brand_style", 5)]


def test_a_frame_is_what_all_pictures_have() -> None:
    frame = common_frame(FINISHED)
    thick = (frame.left, frame.top, frame.right, frame.bottom)
    assert thick == pytest.approx((frame.left,) * 4, abs=0.02)
    assert 0.05 < frame.left < 0.12
    assert common_frame([*FINISHED, SOURCES[0]]) == Frame()
    assert common_frame(FINISHED[:1]) == Frame()
    assert common_frame([]) == Frame()


def test_pictures_of_different_sizes_have_a_frame_in_common() -> None:
    wide = FINISHED[0].resize((200, 120), Image.Resampling.NEAREST)
    assert common_frame([wide, *FINISHED]).left == pytest.approx(0.08, abs=0.03)


def test_nothing_of_a_frame_stays_and_the_inside_is_untouched() -> None:
    frame = common_frame(FINISHED)
    before, after = np.asarray(FINISHED[0]), np.asarray(without_frame(FINISHED[0], frame))
    assert after.shape == before.shape
    inside = slice(10, -10)
    assert np.array_equal(after[inside, inside], before[inside, inside])
    red = before[0, 0].astype(int)
    assert (np.abs(after - red).max(axis=-1) > 20).mean() > 0.98
    assert without_frame(FINISHED[0], Frame()) is FINISHED[0]


def test_recoloring_keeps_brightness_and_differs_by_draw() -> None:
    grey = SOURCES[0].convert("L").convert("RGB")
    one, other = (with_random_colors(grey, np.random.default_rng(seed)) for seed in (1, 2))
    luma = np.asarray(one.convert("L"), int) - np.asarray(grey.convert("L"), int)
    assert np.median(np.abs(luma)) < 6
    assert np.asarray(one).std(axis=-1).mean() > 5
    assert not np.array_equal(np.asarray(one), np.asarray(other))
    again = with_random_colors(grey, np.random.default_rng(1))
    assert np.array_equal(np.asarray(one), np.asarray(again))
