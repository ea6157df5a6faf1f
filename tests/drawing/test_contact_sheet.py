"""Contact sheets: where pictures and texts land, and that nothing runs over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.pairs import ours, put, scene
from PIL import Image

from customize.drawing.contact_sheet import contact_sheet, pairs_sheet
from customize.pairs.find import find_pairs

RED = Image.new("RGB", (64, 64), (255, 0, 0))


def ink(sheet: Image.Image, left: int, top: int, right: int, bottom: int) -> int:
    """Return how many pixels of the box are dark grey text."""
    box_HWC = np.asarray(sheet.crop((left, top, right, bottom))).astype(int)
    return int(((box_HWC.max(axis=2) < 160) & (np.ptp(box_HWC, axis=2) < 30)).sum())


def columns_of_red(sheet: Image.Image) -> np.ndarray:
    pixels_HWC = np.asarray(sheet).astype(int)
    red_HW = (pixels_HWC[..., 0] > 250) & (pixels_HWC[..., 1] < 5)
    return np.flatnonzero(red_HW.any(axis=0))


def test_pictures_fill_their_cells_with_even_margins() -> None:
    sheet = contact_sheet([[RED, RED]], ("a", "b"), cell=96)
    columns = columns_of_red(sheet)
    assert len(columns) == 2 * 96
    margin = columns[0]
    assert columns[96] - columns[95] - 1 == margin
    assert sheet.width - 1 - columns[-1] == margin
    assert (
        sheet.getpixel((0, 0)) == sheet.getpixel((sheet.width - 1, sheet.height - 1)) == (255,) * 3
    )


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (10, 10)])
def test_pictures_keep_their_shape(size: tuple[int, int]) -> None:
    red = Image.new("RGB", size, (255, 0, 0))
    pixels_HWC = np.asarray(contact_sheet([[red]], ("a",), cell=90)).astype(int)
    red_HW = (pixels_HWC[..., 0] > 250) & (pixels_HWC[..., 1] < 5)
    height, width = red_HW.any(axis=1).sum(), red_HW.any(axis=0).sum()
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)
    assert max(height, width) == 90


@pytest.mark.parametrize("text", ["word " * 200, "x" * 500, "one\n\ntwo", "<my-dog> 强 é"])
def test_texts_wrap_and_stay_in_their_cell(text: str) -> None:
    sheet = contact_sheet([[RED, text, RED]], ("a", "b", "c"), cell=120)
    left, right = columns_of_red(sheet)[119] + 1, columns_of_red(sheet)[120]
    assert ink(sheet, left, 30, right, sheet.height) > 20
    bare = contact_sheet([[RED, "", RED]], ("a", "b", "c"), cell=120)
    outside = [(0, 0, left, sheet.height), (right, 0, sheet.width, sheet.height)]
    assert sheet.size == bare.size
    for box in outside:
        assert sheet.crop(box).tobytes() == bare.crop(box).tobytes()


def test_the_sheet_of_pairs_shows_reasons_for_what_cannot_be_read(tmp_path: Path) -> None:
    pairs = find_pairs(ours(tmp_path)).pairs
    whole = pairs_sheet(pairs, cell=96)
    put(pairs[0].source, b"broken")
    torn = pairs_sheet(pairs, cell=96)
    assert torn.size == whole.size
    assert ink(torn, 0, 30, 96, 120) > 50 + ink(whole, 0, 30, 96, 120)


def test_a_long_set_is_cut_short_and_says_so(tmp_path: Path) -> None:
    pairs = find_pairs(ours(tmp_path)).pairs
    forty, many = pairs_sheet(pairs[:1] * 40, cell=48), pairs_sheet(pairs[:1] * 99, cell=48)
    assert forty.height < many.height < forty.height + 60
    assert pairs_sheet([], cell=48).height < 80


def test_small_pictures_are_enlarged_without_smoothing() -> None:
    checks = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("RGB")
    sheet = contact_sheet([[checks]], ("",), cell=64)
    values = set(np.unique(np.asarray(sheet.crop((8, 40, 72, 90)))))
    assert values == {0, 255}
    assert len(np.unique(np.asarray(contact_sheet([[scene(1, (80, 80))]], ("",), cell=64)))) > 20
