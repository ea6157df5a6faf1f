"""What is to be edited, as the user names it: one picture each, not yet checked against a base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from customize.editing.masks import Mask
from customize.files.remote import Remote

_NOWHERE = PurePosixPath()


@dataclass(frozen=True)
class Item:
    """One picture and what is asked of it; None leaves a setting to the run.

    Several instructions are applied one after another; `masks` has one for each, or one for all,
    or none. `strength` multiplies the adapters'. `place` names the item in messages
    (`shots/1.jpg`, `catalogue.csv:7`); `output` is relative to the run's folder, where there is
    one. `variant` names which of several edits of the same picture this is.
    """

    image: Path | Remote
    instructions: tuple[str, ...]
    place: str = ""
    output: PurePosixPath = _NOWHERE
    seed: int | None = None
    text_guidance: float | None = None
    image_guidance: float | None = None
    strength: float = 1.0
    masks: tuple[Mask | None, ...] = ()
    variant: str = ""

    def mask_of(self, stage: int) -> Mask | None:
        """Return the mask of one instruction, by its number in the chain."""
        if not self.masks:
            return None
        return self.masks[0] if len(self.masks) == 1 else self.masks[stage]


OutputFormat = Literal["png", "jpeg", "webp"]
SUFFIXES: dict[OutputFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_WRITABLE = {".png": ".png", ".jpg": ".jpg", ".jpeg": ".jpeg", ".webp": ".webp"}


def output_name(relative: PurePosixPath, kind: OutputFormat | None) -> PurePosixPath:
    """Return a picture's name in the output: its own kind of file where that can be written.

    >>> str(output_name(PurePosixPath("shots/a.TIFF"), None))
    'shots/a.png'
    >>> str(output_name(PurePosixPath("shots/a.png"), "webp"))
    'shots/a.webp'
    """
    own = relative.suffix.lower()
    suffix = SUFFIXES[kind] if kind is not None else _WRITABLE.get(own, ".png")
    return relative if own == suffix else relative.with_suffix(suffix)


def printable(text: str) -> str:
    """Return a name in one line that any terminal can take: a line end in it is spelled.

    >>> print(printable("a" + chr(10) + "b"))
    a\\nb
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()
