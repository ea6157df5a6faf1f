"""Laws of buckets, and the same crop and flip on source and target."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from builders.pairs import pair, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from customize.errors import PairsError
from customize.pairs.buckets import WIDEST, Crop, bucket_for, crop_box, crops, load_example

sides = st.integers(1, 20_000)
grids = st.sampled_from([(64, 8), (64, 4), (256, 8), (256, 32), (512, 64), (512, 8), (768, 64)])
fractions = st.floats(0, 1)


@given(sides, sides, grids)
def test_a_bucket_has_the_area_the_multiples_and_the_shape(
    width: int, height: int, grid: tuple[int, int]
) -> None:
    resolution, multiple = grid
    wide, high = bucket_for(width, height, resolution, multiple)
    assert wide % multiple == high % multiple == 0
    assert abs(wide * high / resolution**2 - 1) <= multiple / resolution
    aspect = min(max(width / height, 1 / WIDEST), WIDEST)
    off = abs(math.log(wide / high / aspect))
    assert off <= 1.5 * multiple / min(wide, high)
    assert bucket_for(height, width, resolution, multiple) == (high, wide)


@given(grids, st.integers(1, 5000))
def test_a_square_picture_gets_the_square_bucket(grid: tuple[int, int], side: int) -> None:
    assert bucket_for(side, side, *grid) == (grid[0], grid[0])


@given(st.integers(2, 9))
def test_a_coarser_grid_has_fewer_buckets(step: int) -> None:
    shapes = [(100 + 7 * n, 200) for n in range(60)]
    fine = {bucket_for(*shape, 512, 8) for shape in shapes}
    coarse = {bucket_for(*shape, 512, 8 * step) for shape in shapes}
    assert len(coarse) < len(fine)


@given(
    sides, sides, st.integers(8, 800), st.integers(8, 800), fractions, fractions, st.floats(1, 2)
)
def test_a_crop_lies_in_the_frame_and_has_the_shape_asked_for(
    width: int, height: int, wide: int, high: int, x: float, y: float, zoom: float
) -> None:
    left, top, right, bottom = crop_box((width, height), (wide, high), Crop(x, y, zoom))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert math.isclose((right - left) / (bottom - top), wide / high, rel_tol=1e-6)
    longest = max((right - left) / width, (bottom - top) / height)
    assert math.isclose(longest, 1 / zoom, rel_tol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([(16, 16), (24, 16), (16, 40)]),
    flip=st.booleans(),
    crop=st.builds(Crop, fractions, fractions, st.floats(1, 1.5)),
    scale=st.sampled_from([1, 2]),
)
def test_source_and_target_are_cut_alike(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    flip: bool,
    crop: Crop,
    scale: int,
) -> None:
    before = scene(4, (48, 40))
    after = before.resize((48 * scale, 40 * scale), Image.Resampling.BICUBIC)
    both = pair(tmp_path_factory.mktemp("cut"), before, after)
    example = load_example(both, size, flip=flip, crop=crop)
    assert example.source_HWC.shape == example.target_HWC.shape == (size[1], size[0], 3)
    assert example.source_HWC.dtype == np.uint8
    apart = np.abs(example.source_HWC.astype(int) - example.target_HWC.astype(int))
    assert apart.max() <= (0 if scale == 1 else 12)


def test_a_flip_mirrors_and_a_crop_moves(tmp_path: Path) -> None:
    both = pair(tmp_path, scene(1), scene(2))
    plain, flipped = (load_example(both, (24, 24), flip=flip) for flip in (False, True))
    np.testing.assert_array_equal(flipped.source_HWC, plain.source_HWC[:, ::-1])
    np.testing.assert_array_equal(flipped.target_HWC, plain.target_HWC[:, ::-1])
    corner = load_example(both, (24, 24), crop=Crop(0, 0, 1.25))
    assert np.abs(corner.source_HWC.astype(int) - plain.source_HWC.astype(int)).max() > 8


def test_an_example_keeps_what_the_pair_says(tmp_path: Path) -> None:
    captions = {"source_caption": "a dog", "target_caption": "a red dog"}
    example = load_example(pair(tmp_path, scene(1), scene(2), "make it red", **captions), (16, 16))
    assert (example.instruction, example.source_caption) == ("make it red", "a dog")
    assert (example.target_caption, example.weight) == ("a red dog", 1.0)


@pytest.mark.parametrize(("target", "fits"), [((101, 100), True), ((102, 100), False)])
def test_shapes_of_a_pair_may_differ_by_one_percent(
    tmp_path: Path, target: tuple[int, int], fits: bool
) -> None:
    both = pair(tmp_path, scene(1, (100, 100)), scene(2, target))
    if fits:
        assert load_example(both, (16, 16)).target_HWC.shape == (16, 16, 3)
    else:
        with pytest.raises(PairsError, match="pair 0: source is 100x100, target 102x100"):
            load_example(both, (16, 16))


def test_crops_begin_with_the_whole_frame_and_come_from_the_seed() -> None:
    assert crops(1, seed=3) == (Crop(0.5, 0.5, 1.0),)
    assert crops(5, seed=3) == crops(5, seed=3) != crops(5, seed=4)
    assert len(set(crops(5, seed=3))) == 5
    assert crops(5, seed=3)[:3] == crops(3, seed=3)
