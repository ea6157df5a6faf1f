"""A picture file opened to be edited and given back as what it was: size, colours, metadata."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms

from customize.editing.edited_picture import NOTHING_KEPT, Metadata
from customize.pairs.decode import ORIENTATION, load_picture, opened_picture, upright

MOST_METADATA = 65_000
"""Bytes of EXIF, XMP or profile kept: what one JPEG segment holds (a profile may have several)."""


@dataclass(frozen=True)
class Photograph:
    """One picture to edit.

    `srgb` is what the base sees: upright, 8-bit, on white. `own` are the same pixels in the file's
    own colour space (`srgb` itself where that is sRGB, or a space that no RGB file can have).
    `alpha` is None for opaque pictures. `changed` says what an answer cannot keep.
    """

    srgb: Image.Image
    own: Image.Image
    alpha: Image.Image | None = None
    kept: Metadata = NOTHING_KEPT
    changed: tuple[str, ...] = ()

    def in_own_colors(self, answer: Image.Image) -> Image.Image:
        """Bring an sRGB picture into the file's colour space."""
        if self.own is self.srgb or self.kept.profile is None:
            return answer
        return _converted(answer, ImageCms.createProfile("sRGB"), self.kept.profile)


def open_photograph(path: Path) -> Photograph:
    """Read a picture with all that its answer shall keep; raises PairsError naming the file."""
    srgb = load_picture(path)
    with opened_picture(path) as opened:
        opened.load()
        turned = upright(opened)
        changed = list(_changed(opened))
        profile = _bounded(turned.info.get("icc_profile"), 16 * MOST_METADATA)
        own = srgb
        if profile is not None and turned.mode in ("RGB", "RGBA") and not _is_srgb(profile):
            own = _on_white(turned)
        elif profile is not None and not _is_srgb(profile):
            profile = None  # of grey, palette or CMYK pixels: the answer is sRGB
        alpha = turned.convert("RGBA").getchannel("A") if turned.has_transparency_data else None
        metadata = {"EXIF": _exif_of(opened), "XMP": turned.info.get("xmp")}
        for name, content in metadata.items():
            if content is not None and _bounded(content) is None:
                changed.append(f"{name} of {len(content)} bytes left out")
    return Photograph(
        srgb=srgb,
        own=own,
        alpha=None if alpha is None or alpha.getextrema() == (255, 255) else alpha,
        kept=Metadata(profile, _bounded(metadata["EXIF"]), _bounded(metadata["XMP"])),
        changed=tuple(changed),
    )


def _exif_of(opened: Image.Image) -> bytes | None:
    """Return the EXIF without how to turn the picture, None where there is none that is whole."""
    try:
        exif = opened.getexif()
        exif.pop(ORIENTATION, None)
        return exif.tobytes() if exif else None
    except Exception:  # Pillow raises whatever it stumbles over
        return None


def _changed(opened: Image.Image) -> list[str]:
    """Say which of the file's ways its answer cannot have."""
    tiles = getattr(opened, "tile", None)  # how the decoder reads: `RGB;16B` for 16 bits
    raw = str(tiles[0].args) if tiles else ""
    found = []
    if ";16" in raw or opened.mode.startswith("I"):
        found.append("16 bits a channel brought to 8")
    if opened.mode in ("CMYK", "YCCK", "LAB"):
        found.append(f"{opened.mode} brought to sRGB")
    return found


def _bounded(content: Any, most: int = MOST_METADATA) -> bytes | None:
    return content if isinstance(content, bytes) and 0 < len(content) <= most else None


def _on_white(image: Image.Image) -> Image.Image:
    """Drop the alpha channel over white, in the file's own colours."""
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _is_srgb(profile: bytes) -> bool:
    """Tell sRGB, and profiles that cannot be read, which count as sRGB (as in `load_picture`)."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = ImageCms.getProfileDescription(opened)
        _converted(Image.new("RGB", (1, 1)), ImageCms.createProfile("sRGB"), profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return True
    return "srgb" in described.lower()


def _converted(image: Image.Image, source: Any, target: bytes) -> Image.Image:
    into = ImageCms.ImageCmsProfile(io.BytesIO(target))
    moved = ImageCms.profileToProfile(image, source, into, outputMode="RGB")
    assert moved is not None, "profileToProfile returns a picture unless asked to work in place"
    return moved
