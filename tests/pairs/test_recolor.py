"""Recoloured copies of a pair: other colours where it changes, the same bits elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customize.pairs.buckets import load_example
from customize.pairs.lint.lint_pairs import lint
from customize.pairs.recolor import changed_share, recolored
from customize.shapes import Pair


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(12, 16, 3), dtype=np.uint8)


def with_a_thing(source_HWC: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    target_HWC = source_HWC.copy()
    target_HWC[3:9, 4:12] = color
    return target_HWC


@given(st.integers(0, 2**31))
def test_what_stays_keeps_its_colours_to_the_bit(seed: int) -> None:
    source_HWC = pixels(1)
    target_HWC = with_a_thing(source_HWC, (200, 30, 30))
    other_HWC = recolored(source_HWC, target_HWC, seed)
    stays_HW = (source_HWC == target_HWC).all(axis=-1)
    np.testing.assert_array_equal(other_HWC[stays_HW], source_HWC[stays_HW])
    assert other_HWC.dtype == np.uint8
    np.testing.assert_array_equal(other_HWC, recolored(source_HWC, target_HWC, seed))


def test_colours_of_what_changes_spread_and_its_form_stays() -> None:
    """Brightness is scaled alike everywhere, so darker stays darker."""
    source_HWC = np.full((8, 8, 3), 90, np.uint8)
    source_HWC[2:6, 2:6], source_HWC[3:5, 3:5] = (180, 60, 60), (120, 40, 40)
    target_HWC = source_HWC.copy()
    target_HWC[2:6, 2:6] = (20, 220, 20)
    others = [recolored(source_HWC, target_HWC, seed) for seed in range(40)]
    outer, inner = (np.stack([o[at].astype(int) for o in others]) for at in ((2, 2), (3, 3)))
    assert outer.std(axis=0).min() > 25
    assert (outer.max(axis=-1) > inner.max(axis=-1)).all()


def test_nearly_equal_pixels_are_not_what_changes() -> None:
    """Saving as JPEG moves pixels by a few levels."""
    source_HWC = pixels(2)
    target_HWC = np.clip(source_HWC.astype(int) + 4, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(recolored(source_HWC, target_HWC, 5), source_HWC)
    assert changed_share(source_HWC, target_HWC) == 0
    assert changed_share(source_HWC, 255 - source_HWC) > 0.9


def pair_of(folder: Path, target_HWC: np.ndarray) -> Pair:
    folder.mkdir()
    source_HWC = np.full((64, 64, 3), (40, 90, 200), np.uint8)
    Image.fromarray(source_HWC).save(folder / "before.png")
    Image.fromarray(target_HWC).save(folder / "after.png")
    return Pair(folder / "before.png", "turn the dog into <it>", folder / "after.png")


def test_a_recoloured_example_keeps_its_target(tmp_path: Path) -> None:
    target_HWC = np.full((64, 64, 3), (40, 90, 200), np.uint8)
    target_HWC[20:40, 20:40] = (200, 90, 40)
    pair = pair_of(tmp_path / "thing", target_HWC)
    plain, other = (load_example(pair, (32, 32), other_colors=n) for n in (None, 3))
    np.testing.assert_array_equal(plain.target_HWC, other.target_HWC)
    assert np.abs(plain.source_HWC.astype(int) - other.source_HWC.astype(int)).max() > 20


@pytest.mark.parametrize(("side", "warns"), [(20, False), (60, True)])
def test_looks_are_warned_of(tmp_path: Path, side: int, warns: bool) -> None:
    target_HWC = np.full((64, 64, 3), (40, 90, 200), np.uint8)
    target_HWC[:side, :side] = (200, 90, 40)
    pairs = [pair_of(tmp_path / "one", target_HWC)]
    told = [str(fault) for fault in lint(pairs, resolution=64, recolored=3)]
    assert any("recolored: 0" in fault for fault in told) == warns
    assert not any("recolored" in str(fault) for fault in lint(pairs, resolution=64))
