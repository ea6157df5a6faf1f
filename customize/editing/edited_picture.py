"""An edited picture together with the settings that made it, and the file that carries both."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, PngImagePlugin

from customize.errors import EditError, PairsError
from customize.families.sampling_defaults import Detail
from customize.files import refuse_existing, replacing
from customize.files.parse import parse_json
from customize.files.remote import Remote
from customize.files.text import MOST_BYTES
from customize.pairs.decode import opened_picture

KEY = "customize"
"""Name of the PNG text chunk that holds the settings as JSON."""

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


_USUAL = {
    "noise": "own",
    "detail": "scaled",
    "tiles": False,
    "fast": False,
    "keep_unchanged": False,
    "further_sources": 0,
}
"""Settings that the text other programs show leaves out where nothing is said of them."""


@dataclass(frozen=True)
class Used:
    """An adapter in use: its file's name (folders are private) and hash, and its strength."""

    file: str
    sha256: str
    strength: float


@dataclass(frozen=True)
class Settings:
    """All that an edit follows from besides the source picture.

    `earlier` are the instructions of a chain before this one; `width` and `height` are the size, in
    pixels, at which the base worked, before the answer was brought to the source's size. `noise` is
    the seed's own at this size, or its field's for all sizes. `masks` are names, regions or "auto".
    `further_sources` counts pictures that the base looked at besides the source.
    """

    instruction: str
    base: str
    base_fingerprint: str
    steps: int
    scheduler: str
    seed: int
    text_guidance: float
    image_guidance: float
    width: int
    height: int
    adapters: tuple[Used, ...] = ()
    earlier: tuple[str, ...] = ()
    version: str = ""
    noise: Literal["own", "field"] = "own"
    detail: Detail = "scaled"
    tiles: bool = False
    fast: bool = False
    masks: tuple[str, ...] = ()
    keep_unchanged: bool = False
    further_sources: int = 0

    def as_parameters(self) -> str:
        """Write the settings in the form that AUTOMATIC1111's and similar programs show.

        The seed gives the same noise only in programs that draw it on the CPU as diffusers does.
        """
        fields = {
            "Steps": self.steps,
            "Sampler": self.scheduler,
            "CFG scale": f"{self.text_guidance:g}",
            "Image CFG scale": f"{self.image_guidance:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model": Path(self.base).name,
            "Model hash": self.base_fingerprint[:10],
        }
        if self.adapters:
            used = (f"{Path(a.file).stem}: {a.strength:g}" for a in self.adapters)
            fields["Adapters"] = '"' + ", ".join(used) + '"'
        fields |= {
            name.capitalize().replace("_", " "): str(getattr(self, name))
            for name, usual in _USUAL.items()
            if getattr(self, name) != usual
        }
        fields["Version"] = f"customize {self.version}"
        listed = ", ".join(f"{name}: {value}" for name, value in fields.items())
        return f"{self.instruction}\n{listed}"


@dataclass(frozen=True)
class Metadata:
    """What a source's file says beside its pixels, and an answer's keeps: colour profile, EXIF
    without its orientation, and XMP.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


NOTHING_KEPT = Metadata()


@dataclass(frozen=True)
class Edited:
    """One answer of the editor: the picture at the source's size, RGB or, where the source lets
    through what is behind it, RGBA; its settings; and what it keeps of the source's file.
    """

    image: Image.Image
    settings: Settings
    kept: Metadata = NOTHING_KEPT

    def save(
        self,
        path: Path | str,
        *,
        overwrite: bool = False,
        quality: int = 95,
        note: tuple[str, str] | None = None,
    ) -> Path:
        """Write the picture whole or not at all; see `encoded`.

        Raises EditError for an unknown suffix, OutputExistsError when `path` may not be replaced.
        """
        path = Path(path)
        check_output(path, overwrite=overwrite)
        content = self.encoded(path.suffix, quality, note)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def encoded(self, suffix: str, quality: int = 95, note: tuple[str, str] | None = None) -> bytes:
        """Return the file's content; a PNG carries the settings, JPEG and WebP cannot.

        `quality`, 1 to 100, is theirs; `note` is one more text, by name, of a PNG. A JPEG is laid
        on white, as it knows no transparency.
        """
        kind = FORMATS[suffix.lower()]
        image, options = self.image, self._metadata(kind)
        if kind == "PNG":
            chunks = options["pnginfo"] = PngImagePlugin.PngInfo()
            chunks.add_itxt(KEY, json.dumps(asdict(self.settings), ensure_ascii=False))
            chunks.add_text("parameters", self.settings.as_parameters())
            if note is not None:
                chunks.add_text(*note)
            if self.kept.xmp is not None:
                chunks.add_itxt("XML:com.adobe.xmp", self.kept.xmp.decode("utf-8", "replace"))
        else:
            options["quality"] = quality
        if kind == "JPEG" and image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image).convert("RGB")
        content = io.BytesIO()
        image.save(content, kind, **options)
        return content.getvalue()

    def _metadata(self, kind: str) -> dict[str, Any]:
        """Return what is kept as Pillow's arguments for a kind of file."""
        found = {"icc_profile": self.kept.profile, "exif": self.kept.exif, "xmp": self.kept.xmp}
        if kind == "PNG":
            del found["xmp"]  # a text chunk there
        return {name: content for name, content in found.items() if content is not None}


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that cannot or may not be written, before hours of work rather than after.

    Raises EditError for an unknown suffix or a folder, OutputExistsError for a file already there.
    """
    if path.suffix.lower() not in FORMATS:
        found = f"{path.suffix!r} is no picture format this writes" if path.suffix else "no suffix"
        raise EditError(
            f"output {path}: {found}; expected {', '.join(FORMATS)}; .png keeps the settings too"
        )
    if path.is_dir():
        raise EditError(f"output {path}: it is a folder; expected a file; name a picture in it")
    refuse_existing(path, overwrite=overwrite)


def keeps_settings(path: Path) -> bool:
    """Tell whether a picture written to `path` will carry its settings."""
    return path.suffix.lower() == ".png"


def carries_settings(path: Path | Remote) -> bool:
    """Tell a picture that an edit wrote from any other file."""
    try:
        return read_settings(path) is not None
    except EditError:
        return False


def read_settings(path: Path | Remote) -> dict[str, Any] | None:
    """Return the settings a PNG carries, None for a picture that carries none.

    Raises EditError for a file that is missing or no picture.
    """
    try:
        with opened_picture(path) as image:
            text = getattr(image, "text", {}).get(KEY)
    except PairsError as error:
        found = error.faults[0].found
        raise EditError(f"{path}: {found}; expected a PNG of `customize edit`") from None
    try:
        settings = parse_json(text, MOST_BYTES) if text else None
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None
