"""Masks keep what is outside bit for bit, and detail keeps what an edit leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.pairs import scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from customize.editing.detail import _mean, with_own_detail
from customize.editing.masks import Mask, composed, drawn, latent_mask, region_of, softened, union
from customize.errors import EditError


def noise(
    size: tuple[int, int], seed: int = 0, mean: float = 128, spread: float = 40
) -> Image.Image:
    pixels = np.random.default_rng(seed).normal(mean, spread, (*size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 90), st.integers(1, 60))
def test_soft_masks_stay_inside_and_keep_half(seed: int, width: int, height: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.zeros((60, 90), np.uint8)
    x, y = int(random.integers(0, 90)), int(random.integers(0, 60))
    mask[y : y + height, x : x + width] = 255
    soft = np.asarray(softened(Image.fromarray(mask), soft=0.2))
    assert not soft[mask == 0].any()
    assert soft.sum(dtype=int) >= mask.sum(dtype=int) / 2


def test_masks_reach_the_edge_of_the_picture_without_fading() -> None:
    soft = np.asarray(softened(Image.new("L", (50, 40), 255), soft=0.2))
    assert (soft == 255).all()


def test_outside_is_bit_equal_and_inside_is_the_answer() -> None:
    source, answer = noise((180, 120)), noise((180, 120), 1)
    soft = softened(drawn(region_of("40,20,80,60"), (180, 120)))
    made = np.asarray(composed(answer, source, soft))
    level = np.asarray(soft)
    assert (made[level == 0] == np.asarray(source)[level == 0]).all()
    assert (made[level == 255] == np.asarray(answer)[level == 255]).all()
    assert (level == 255).sum() > 500
    assert ((level > 0) & (level < 255)).any()


def test_an_edge_narrower_than_a_pixel_is_not_softened() -> None:
    hard = drawn(region_of("20,10,40,30"), (64, 64))
    assert softened(hard).tobytes() == hard.tobytes()


def test_latent_masks_free_whatever_they_touch_and_the_cells_beside() -> None:
    grey = np.zeros((64, 64), np.uint8)
    grey[17, 33] = 1
    free = latent_mask(Image.fromarray(grey), 8, 8)
    assert free.sum() == 9
    assert free[1:4, 3:6].all()
    both = union([Image.fromarray(grey), Image.new("L", (64, 64), 255)])
    assert latent_mask(both, 8, 8).all()


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,4,4", "0,0,0,4"])
def test_regions_that_are_none(text: str) -> None:
    with pytest.raises(EditError, match="X,Y,W,H"):
        region_of(text)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    Image.new("L", (30, 90), 255).save(tmp_path / "tall.png")
    Image.new("L", (90, 60), 0).save(tmp_path / "black.png")
    Image.new("L", (45, 30), 255).save(tmp_path / "small.png")
    for mask, told in (
        (Mask(file=tmp_path / "tall.png"), "same shape"),
        (Mask(file=tmp_path / "black.png"), "invert"),
        (region_of("90,0,5,5"), "outside"),
    ):
        with pytest.raises(EditError, match=told):
            drawn(mask, (90, 60))
    assert drawn(Mask(file=tmp_path / "small.png"), (90, 60)).size == (90, 60)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 30), st.integers(3, 30), st.integers(0, 5), st.integers(0, 99))
def test_means_are_those_of_squares(height: int, width: int, radius: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((height, width, 2)).astype(np.float32)
    edged = np.pad(values, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    side = 2 * radius + 1
    expected = np.stack(
        [
            [edged[y : y + side, x : x + side].mean(axis=(0, 1)) for x in range(width)]
            for y in range(height)
        ]
    )
    assert np.allclose(_mean(values, radius), expected, atol=1e-5)


def _energy(image: Image.Image, where: np.ndarray | None = None) -> float:
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    square = np.gradient(grey)[0] ** 2 + np.gradient(grey)[1] ** 2
    return float(square.mean() if where is None else square[where].mean())


def test_an_edit_that_changes_nothing_is_the_identity() -> None:
    source, unedited = noise((640, 480)), scene(0, (64, 48))
    assert with_own_detail(source, unedited, unedited) is source


_HALF = [value // 2 for value in range(256)] * 3


def test_a_darker_picture_keeps_its_detail() -> None:
    source = noise((640, 480)).filter(ImageFilter.GaussianBlur(1))
    small = source.resize((64, 48), Image.Resampling.LANCZOS)
    dark = small.point(_HALF)
    made = with_own_detail(source, dark, small)
    wanted = source.point(_HALF)
    scaled = dark.resize(source.size, Image.Resampling.LANCZOS)
    assert _energy(made) > 0.5 * _energy(wanted)
    assert _energy(scaled) < 0.2 * _energy(wanted)
    difference = np.asarray(made, dtype=float) - np.asarray(wanted)
    assert abs(difference.mean()) < 3


def test_a_picture_in_grey_takes_no_colour_from_the_source() -> None:
    source = noise((16, 12), spread=90).resize((640, 480), Image.Resampling.BICUBIC)
    small = source.resize((64, 48), Image.Resampling.LANCZOS)
    grey = small.convert("L").convert("RGB")
    made = np.asarray(with_own_detail(source, grey, small), dtype=float)
    wanted = np.asarray(source.convert("L").convert("RGB"), dtype=float)
    colours = np.asarray(source, dtype=float)
    assert np.ptp(made, axis=2).mean() < 0.15 * np.ptp(colours, axis=2).mean()
    assert np.abs(made - wanted).mean() < 0.15 * np.abs(colours - wanted).mean()


def test_a_blurred_picture_is_not_sharpened_by_the_source() -> None:
    source = Image.fromarray(np.kron(np.indices((24, 32)).sum(axis=0) % 2 * 200, np.ones((2, 2))))
    small = source.convert("RGB")
    blurred = small.filter(ImageFilter.GaussianBlur(2))
    made = with_own_detail(small, blurred, small)
    assert _energy(made) < 0.3 * _energy(small)


def test_a_thing_replaced_loses_the_old_detail_and_the_rest_keeps_all() -> None:
    source = noise((640, 480))
    small = source.resize((64, 48), Image.Resampling.LANCZOS)
    pasted = small.copy()
    pasted.paste((250, 40, 40), (16, 12, 40, 36))
    made = with_own_detail(source, pasted, small)
    inside, outside = np.zeros((480, 640), bool), np.ones((480, 640), bool)
    inside[180:300, 220:340] = True
    outside[60:420, 100:460] = False
    assert _energy(made, outside) == _energy(source, outside)
    assert _energy(made, inside) < 0.05 * _energy(source, inside)
    assert np.abs(np.asarray(made, dtype=int)[inside].mean(axis=0) - (250, 40, 40)).max() < 12
