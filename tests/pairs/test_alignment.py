"""Pictures of a pair that lie beside one another are found to a fifth of a pixel, and corrected."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from builders.pairs import pair, put, put_rows
from PIL import Image, ImageFilter, ImageOps

from customize.cli.main import main
from customize.embedded.world.concepts import CONCEPT_NAMES, concept_pairs
from customize.pairs.buckets import bucket_for, crops, load_example
from customize.pairs.find import find_pairs
from customize.pairs.lint.alignment import alignment
from customize.pairs.lint.misaligned import alignment_faults, alignment_of, corrected, is_off
from customize.scoring.metrics.shift import shift

SIDE = 200


def _texture(seed: int, side: int = 320) -> Image.Image:
    """Draw soft shapes of many sizes with sharp edges, as photographs have."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), 120.0)
    for _ in range(90):
        x, y = random.uniform(0, side, 2)
        wide, high = random.uniform(4, 40, 2)
        angle, color = random.uniform(0, math.pi), random.uniform(0, 255, 3)
        across = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
        down = (rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)
        inside = (across / wide) ** 2 + (down / high) ** 2 < 1
        pixels[inside] = 0.3 * pixels[inside] + 0.7 * color
    return Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))


def _view(picture: Image.Image, x: float = 0, y: float = 0, scale: float = 1) -> Image.Image:
    """Look at the middle, its content moved by (x, y) pixels and enlarged about the middle."""
    side, middle = SIDE / scale, picture.width / 2
    left, top = middle - x / scale - side / 2, middle - y / scale - side / 2
    box = (left, top, left + side, top + side)
    return picture.transform((SIDE, SIDE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)


LOOKS = {
    "the same": lambda picture: picture,
    "inverted": ImageOps.invert,
    "two colours": lambda p: ImageOps.colorize(ImageOps.grayscale(p), "#102040", "#ffcc66"),
    "few colours": lambda picture: ImageOps.posterize(picture, 3),
    "sketched": lambda p: ImageOps.grayscale(p).filter(ImageFilter.EDGE_ENHANCE_MORE),
}
PLANTED = [(0.5, 0, 1), (0, 1, 1), (-2, 0, 1), (3, -4, 1), (0, 0, 1.01), (0, 0, 0.98), (0, 0, 1)]


@pytest.mark.parametrize("look", LOOKS)
def test_planted_shifts_and_scales_are_found(look: str) -> None:
    picture = _texture(sum(map(ord, look)))
    for x, y, scale in PLANTED:
        source, target = _view(picture), LOOKS[look](_view(picture, x, y, scale))
        found = alignment(source, target)
        assert math.hypot(found.x - x, found.y - y) <= 0.2
        assert abs(found.scale / scale - 1) <= 0.003
        assert found.certain
        assert is_off(found, source.size) == ((x, y, scale) != (0, 0, 1))


def test_an_added_thing_does_not_pull() -> None:
    picture = _texture(3)
    target = _view(picture, 1, 0)
    target.paste((250, 40, 40), (20, 30, 90, 110))
    found = alignment(_view(picture), target)
    assert math.hypot(found.x - 1, found.y) <= 0.2
    assert found.certain


def test_a_turn_is_found() -> None:
    picture = _texture(4)
    turned = picture.rotate(-1.0, Image.Resampling.BICUBIC)
    found = alignment(_view(picture), _view(turned))
    assert found.degrees == pytest.approx(1.0, abs=0.05)


def test_nothing_in_common_is_not_told() -> None:
    found = alignment(_view(_texture(5)), _view(_texture(6)))
    assert not found.certain
    assert not is_off(found, (SIDE, SIDE))
    assert alignment_of(_view(_texture(5)).resize((32, 32)), _view(_texture(5))) is None


def test_the_examples_raise_no_alarm(tmp_path: Path) -> None:
    """Of every concept that a recipe teaches, drawn as examples/make_pairs.py does."""
    found = 0
    for name in CONCEPT_NAMES:
        for edit in (*concept_pairs(name, 4), *concept_pairs(name, 4, test=True)):
            pictures = Image.fromarray(edit.source_HWC), Image.fromarray(edit.target_HWC)
            one = pair(tmp_path, *pictures, edit.instruction)
            assert not list(alignment_faults([one], "#ffffff")), (name, edit.instruction)
            found += 1
    assert found >= 24


@pytest.mark.parametrize("planted", [(1.5, -2.0, 1.0), (0.0, 0.0, 1.02)])
def test_corrected_copies_lie_on_one_another(planted: tuple[float, float, float]) -> None:
    picture = _texture(8)
    source, target = _view(picture), _view(picture, *planted)
    ours, theirs = corrected(source, target, alignment(source, target))
    assert ours.size == theirs.size
    assert min(ours.size) >= SIDE - 10
    apart = np.abs(np.array(ours, float) - np.array(theirs, float))
    before = np.abs(np.array(source, float) - np.array(target, float))
    assert apart.mean() < 0.25 * before.mean()
    assert alignment(ours, theirs).distance(ours.size) < 0.15


def test_the_metric_counts_pixels() -> None:
    picture = _texture(9)
    source = _view(picture)
    assert shift(_view(picture, 3, 4), source) == pytest.approx(5, abs=0.2)
    assert shift(source, source) == pytest.approx(0, abs=0.05)
    assert shift(_view(_texture(10)), source) == "too little of the source is left to tell"


@pytest.mark.parametrize("size", [(640, 480), (501, 333), (333, 777), (64, 64)])
def test_our_own_cuts_keep_pairs_exactly_aligned(tmp_path: Path, size: tuple[int, int]) -> None:
    """At every bucket, crop and flip: the same pixels in give the same pixels out."""
    random = np.random.default_rng(1)
    picture = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    one, cut = pair(tmp_path, picture, picture), 0
    for multiple in (8, 16, 64):
        for resolution in (64, 128, 200):
            bucket = bucket_for(*size, resolution, multiple)
            for crop in crops(3, seed=2):
                for flip in (False, True):
                    example = load_example(one, bucket, flip=flip, crop=crop)
                    assert np.array_equal(example.source_HWC, example.target_HWC)
                    assert example.source_HWC.shape == (bucket[1], bucket[0], 3)
                    cut += 1
    assert cut == 54


def test_check_tells_and_align_writes_corrected_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    rows = []
    for number, x in enumerate((0.0, 2.0, 0.0)):
        picture = _texture(20 + number)
        names = [f"{number}a.png", f"{number}b.png"]
        views = _view(picture), ImageOps.posterize(_view(picture, x), 3)
        for name, view in zip(names, views, strict=True):
            put(tmp_path / "pairs" / name, view)
        rows.append({"source": names[0], "instruction": "few colours", "edited": names[1]})
    put_rows(tmp_path / "pairs" / "pairs.jsonl", *rows)
    before = {path: path.read_bytes() for path in (tmp_path / "pairs").iterdir()}
    (tmp_path / "r.yaml").write_text("concepts:\n  - {name: few, pairs: pairs}\n")
    assert main(["check", "r.yaml", "-o", "sheet.png", "--align", "aligned"]) == 0
    told = capsys.readouterr().out
    assert "the target lies beside the source: 2.0 pixels right" in told
    assert [line.endswith("corrected") for line in told.splitlines()].count(True) == 1
    copies = find_pairs(tmp_path / "aligned" / "few").pairs
    sizes = [Image.open(copy.source).size for copy in copies]
    assert sizes[0] == sizes[2] == (SIDE, SIDE) != sizes[1]
    assert not list(alignment_faults(copies, "#ffffff"))
    put(copies[0].target, Image.open(tmp_path / "pairs" / "1b.png"))  # what is remembered is let go
    put(copies[0].source, Image.open(tmp_path / "pairs" / "1a.png"))
    assert len(list(alignment_faults(copies, "#ffffff"))) == 1
    assert Image.open(tmp_path / "aligned" / "few" / "alignment.png").width > 300
    assert len(before) == 7
    assert all(path.read_bytes() == content for path, content in before.items())
    assert main(["check", "r.yaml", "-o", "sheet2.png", "--align", "aligned"]) == 2
