"""One picture file to upright, opaque, 8-bit sRGB; what cannot get there is refused by name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, UnidentifiedImageError

from customize.errors import Fault, PairsError
from customize.files.remote import Remote
from customize.files.spelling import as_stored
from customize.files.text import found_at
from customize.pairs.picture_files import CONVERT

MOST_PIXELS = 100_000_000
"""Refused above: 300 MB as RGB, and near where Pillow's own guard against bombs begins."""

DISGUISES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the picture", "run `git lfs pull`"),
    (b"<!doctype html", "a web page, not a picture", "download the picture itself"),
    (b"<html", "a web page, not a picture", "download the picture itself"),
    (b"<svg", "an SVG drawing", "export it as PNG"),
    (b"<?xml", "an XML file", "export it as PNG"),
    (b"%pdf", "a PDF", "export it as PNG"),
    (b"pk\x03\x04", "a zip archive", "unpack it"),
)


def load_picture(path: Path, alpha_color: str = "#ffffff") -> Image.Image:
    """Return the picture upright, in sRGB, alpha composited on `alpha_color`.

    16-bit greys are scaled to 8 bits, palette, grey and CMYK pictures converted by their embedded
    profile if any. Raises PairsError naming the file where it is missing, empty, damaged, animated,
    too large or not a picture.
    """
    try:
        color = ImageColor.getrgb(alpha_color)[:3]
    except ValueError:
        raise _refused(path, f"alpha colour {alpha_color!r}", "write one like #ffffff") from None
    with opened_picture(path) as opened:
        opened.load()
        return _flat_rgb(path, upright(opened), color)


def upright_size(path: Path | Remote) -> tuple[int, int]:
    """Return a picture's (W, H) as it is shown, from its head alone; raises as `load_picture`."""
    with opened_picture(path) as opened:
        width, height = opened.size
        return (height, width) if exif_entry(opened, ORIENTATION) in _LYING else (width, height)


def exif_entry(image: Image.Image, number: int) -> object:
    """Return an entry of a picture's EXIF, None where it has none or its EXIF is damaged.

    The picture itself may be whole: some programs write EXIF that no reader understands.
    """
    if image.format == "PNG":
        image.load()  # a PNG's EXIF may come after its pixels, whose faults count
    try:
        return image.getexif().get(number)
    except Exception:  # Pillow raises whatever it stumbles over
        return None


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says."""
    way = exif_entry(image, ORIENTATION)
    return image.transpose(_TURNS[way]) if isinstance(way, int) and way in _TURNS else image


@contextmanager
def opened_picture(path: Path | Remote) -> Iterator[Image.Image]:
    """Open a picture of one frame and bearable size; whatever goes wrong inside is a PairsError."""
    with warnings.catch_warnings():
        # bombs are checked below, odd EXIF is no fault of the picture
        warnings.simplefilter("ignore")
        try:
            if isinstance(path, Path):
                path = as_stored(path)
                if path.exists() and not path.is_file() and not path.is_dir():
                    raise _refused(path, found_at(path), "name a picture file")
            file = nullcontext(path) if isinstance(path, Path) else path.open()
            with file as content, Image.open(content) as opened:
                _check_frames(path, opened)
                yield opened
        except PairsError:
            raise
        except Image.DecompressionBombError:
            raise _refused(path, "far too many pixels", _SHRINK) from None
        except UnidentifiedImageError:
            raise _unidentified(path) from None
        except Exception as error:  # a damaged file may make a decoder raise anything at all
            if isinstance(error, OSError) and error.errno is not None:
                found = f"cannot be read ({error.strerror})"
                raise _refused(path, found, "check the file") from None
            found = f"damaged or cut short ({error})"
            raise _refused(path, found, "copy or export the picture again") from None


ORIENTATION = 0x0112
"""The number of EXIF's entry on how a picture is to be turned."""
_LYING = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SHRINK = "shrink it to at most 4096 pixels a side"


def _refused(path: Path | Remote, found: str, cure: str) -> PairsError:
    return PairsError("picture", [Fault(str(path), found, cure)])


def _check_frames(path: Path | Remote, opened: Image.Image) -> None:
    """Refuse animations, pages and giants; a phone's MPO has its photograph first."""
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        found = f"{frames} pages" if opened.format == "TIFF" else f"animated, {frames} frames"
        raise _refused(path, found, "save the one you mean as PNG")
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise _refused(path, f"{width}x{height} pixels", _SHRINK)


def _unidentified(path: Path | Remote) -> PairsError:
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        head = file.read(64)
    if not head:
        return _refused(path, "an empty file", "copy the picture again")
    if head[4:8] == b"ftyp":
        return _refused(path, f"a {head[8:12].decode('latin-1')} file (HEIC or video)", CONVERT)
    for magic, found, cure in DISGUISES:
        if head.lstrip().lower().startswith(magic):
            return _refused(path, found, cure)
    return _refused(path, "not a picture of a known kind, or its start is damaged", CONVERT)


def _flat_rgb(path: Path, image: Image.Image, color: tuple[int, ...]) -> Image.Image:
    """Return `image` in 8-bit sRGB over `color`."""
    profile, alpha = image.info.get("icc_profile"), None
    if image.mode == "F":
        raise _refused(path, "floating-point pixels", "export it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _eight_bits(path, image)
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        image = image.convert("RGBA").convert("RGB")
    elif image.mode in ("P", "1", "LA", "PA"):
        image = image.convert("RGB")
    rgb = _to_srgb(image, profile) if profile else image.convert("RGB")
    rgb.info = {}
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, color), alpha)


def _eight_bits(path: Path, image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit, 65535 to 255, keeping a transparent grey value."""
    values_HW = np.asarray(image).astype(np.int64)
    if values_HW.min() < 0 or values_HW.max() > 65535:
        raise _refused(path, "more than 16 bits a pixel", "export it with 8 or 16 bits a channel")
    grey = Image.fromarray(np.rint(values_HW / 257).astype(np.uint8))
    hidden = image.info.get("transparency")
    if not isinstance(hidden, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values_HW == hidden, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return `image` moved from its embedded profile to sRGB; a broken profile counts as none.

    Phones save Display P3 and printers CMYK: dropping the profile would shift every colour a model
    learns.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        moved = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")
    assert moved is not None, "profileToProfile returns a picture unless asked to work in place"
    return moved
