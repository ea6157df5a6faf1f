"""Whatever a picture file holds comes out upright, opaque, 8-bit sRGB, or is refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.pairs import put, scene
from PIL import Image, ImageCms

from customize.editing.photograph import open_photograph
from customize.errors import PairsError
from customize.pairs.decode import load_picture, upright_size
from customize.pairs.lint.pictures import look_at

RED, WHITE = (255, 0, 0), (255, 255, 255)


def reload(path: Path, image: Image.Image, alpha_color: str = "#ffffff", **options: Any):
    """Save `image` at `path` and load it as pixels."""
    picture = load_picture(put(path, image, **options), alpha_color)
    assert picture.mode == "RGB"
    return np.asarray(picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = scene(3, (30, 20))
    ways_back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(ways_back[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels_HWC = reload(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(pixels_HWC, np.asarray(upright))


@pytest.mark.parametrize(("color", "seen"), [("#ffffff", WHITE), ("#ff0000", RED), ("red", RED)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_the_stated_colour(
    tmp_path: Path, mode: str, color: str, seen: tuple[int, int, int]
) -> None:
    half = Image.new(mode, (4, 2), 0)
    half.paste((0, 255) if mode == "LA" else (0, 0, 0, 255), (0, 0, 2, 2))
    pixels_HWC = reload(tmp_path / "a.png", half, color)
    assert tuple(pixels_HWC[0, 0]) == (0, 0, 0)
    assert tuple(pixels_HWC[0, 3]) == seen


def test_partial_alpha_is_mixed_and_palette_transparency_counts(tmp_path: Path) -> None:
    veil = Image.new("RGBA", (2, 2), (0, 0, 0, 51))
    assert reload(tmp_path / "a.png", veil).tolist() == [[[204] * 3] * 2] * 2
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    pixels_HWC = reload(tmp_path / "b.png", palette, "#0000ff", transparency=0)
    assert pixels_HWC[0].tolist() == [[0, 0, 255], [40, 50, 60]]


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    values_HW = np.array([[0, 257, 32896, 65535]], np.uint16)
    pixels_HWC = reload(tmp_path / "a.png", Image.fromarray(values_HW))
    assert pixels_HWC[0, :, 0].tolist() == [0, 1, 128, 255]
    assert reload(tmp_path / "b.tif", Image.fromarray(values_HW))[0, 3].tolist() == [255] * 3


def test_a_transparent_sixteen_bit_grey_is_composited(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 500]], np.uint16))
    pixels_HWC = reload(tmp_path / "a.png", grey, "#00ff00", transparency=500)
    assert pixels_HWC[0].tolist() == [[0, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    image = scene(5).convert(mode)
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    pixels_HWC = reload(tmp_path / f"a.{suffix}", image).astype(int)
    expected_HWC = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels_HWC - expected_HWC).mean() < 3


def test_an_embedded_profile_is_applied_and_a_broken_one_ignored(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    untouched = reload(tmp_path / "a.png", image, icc_profile=srgb)
    assert tuple(untouched[0, 0]) == (200, 100, 50)
    assert tuple(reload(tmp_path / "b.png", image, icc_profile=b"junk")[0, 0]) == (200, 100, 50)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # wrong for RGB
    assert tuple(reload(tmp_path / "c.png", image, icc_profile=lab)[0, 0]) == (200, 100, 50)
    swapped = reload(tmp_path / "d.png", image, icc_profile=_without_name(_rotated(srgb)))
    np.testing.assert_allclose(swapped[0, 0], (50, 200, 100), atol=40)
    assert swapped[0, 0].argmax() != 0


def _rotated(profile: bytes) -> bytes:
    """Return the profile with the red primary's tag pointing at green's values, and so on round."""
    return (
        profile.replace(b"rXYZ", b"tmpX")
        .replace(b"gXYZ", b"rXYZ")
        .replace(b"bXYZ", b"gXYZ")
        .replace(b"tmpX", b"bXYZ")
    )


def _without_name(profile: bytes) -> bytes:
    return profile.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


def test_a_phone_picture_with_extras_gives_its_photograph(tmp_path: Path) -> None:
    path = tmp_path / "a.mpo"
    scene(1).save(path, save_all=True, append_images=[scene(2)])
    shown = np.asarray(load_picture(path.rename(tmp_path / "a.jpg"))).astype(int)
    assert np.abs(shown - np.asarray(scene(1)).astype(int)).mean() < 5


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_are_refused_and_stills_are_not(
    tmp_path: Path, suffix: str, frames: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    others = [scene(n) for n in range(1, frames)]
    scene(0).save(path, save_all=True, append_images=others)
    if frames == 1:
        assert load_picture(path).size == scene(0).size
    else:
        with pytest.raises(PairsError, match="animated, 2 frames"):
            load_picture(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_a_file_cut_anywhere_is_refused_by_name_or_whole(tmp_path: Path, suffix: str) -> None:
    whole = put(tmp_path / f"whole.{suffix}", scene(1, (64, 64))).read_bytes()
    refused = 0
    for part in np.linspace(0, len(whole) * 0.9, 12, dtype=int):
        path = put(tmp_path / f"cut.{suffix}", whole[:part])
        try:
            load_picture(path)
        except PairsError as error:
            refused += str(path) in str(error)
    assert refused >= 10  # formats that end in an index may still be whole near the end


def test_missing_folders_and_bad_colours_are_named(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match=r"gone\.png: cannot be read"):
        load_picture(tmp_path / "gone.png")
    with pytest.raises(PairsError, match="cannot be read"):
        load_picture(tmp_path)
    with pytest.raises(PairsError, match=r"alpha colour 'cremy'.*#ffffff"):
        load_picture(put(tmp_path / "a.png"), "cremy")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!!", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*"])
def test_damaged_exif_costs_the_exif_alone(tmp_path: Path, suffix: str, exif: bytes) -> None:
    put(tmp_path / f"whole{suffix}", 3)
    put(path := tmp_path / f"odd{suffix}", 3, exif=exif)
    assert load_picture(path).tobytes() == load_picture(tmp_path / f"whole{suffix}").tobytes()
    assert upright_size(path) == (48, 40)
    assert not look_at(path, "#ffffff").camera
    assert open_photograph(path).srgb.size == (48, 40)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, value: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    put(path := tmp_path / "odd.png", 3, exif=exif)
    assert load_picture(path).size == (48, 40)


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(PairsError, match="which may never end"):
            load_picture(path)
    with pytest.raises(PairsError, match="cannot be read"):
        load_picture(tmp_path / ("n" * 300))
