"""The files of a pairs folder: which are pictures, how they are named, what their texts say.

The readers of layouts yield `Pair | Fault`, so that one pass over a folder collects every fault.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from customize.errors import Fault
from customize.files import text
from customize.files.spelling import as_stored, composed
from customize.shapes import Pair

Find = Pair | Fault
"""What a layout reader yields: a pair, or why there is none."""

PICTURE_SUFFIXES = frozenset([
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".apng",
    ".avif", ".ppm", ".pgm", ".tga", ".jp2",
])  # fmt: skip
FOREIGN_SUFFIXES = frozenset([
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".xcf", ".pdf", ".eps", ".raw", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".exr", ".hdr", ".mp4", ".mov", ".mkv", ".webm", ".avi", ".npy",
])  # fmt: skip
CONVERT = "convert it to PNG or JPEG"
LONGEST_TEXT = 5000
"""Characters of an instruction or a caption."""


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key that puts image2 before image10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def visible(folder: Path) -> list[Path]:
    """Return the folder's entries in natural order, without hidden ones (`._photo.jpg`)."""
    return sorted((entry for entry in folder.iterdir() if entry.name[0] != "."), key=natural)


def pictures_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures directly inside `folder` by stem, accents composed; twins both listed."""
    found: dict[str, list[Path]] = {}
    for entry in visible(folder):
        if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file():
            found.setdefault(composed(entry.stem), []).append(entry)
    return found


def holds_pictures(folder: Path) -> bool:
    """Say whether `folder` is one with pictures directly inside, readable or not."""
    suffixes = PICTURE_SUFFIXES | FOREIGN_SUFFIXES
    return folder.is_dir() and any(entry.suffix.lower() in suffixes for entry in visible(folder))


def overlooked(folder: Path, root: Path, known: Collection[Path] = ()) -> Iterator[Fault]:
    """Yield what pairing by stem would pass over: foreign pictures, twin stems, subfolders."""
    for entry in visible(folder):
        if entry.suffix.lower() in FOREIGN_SUFFIXES and entry.is_file():
            yield Fault(name(entry, root), f"{entry.suffix} files cannot be read", CONVERT)
        elif entry not in known and holds_pictures(entry):
            yield Fault(
                name(entry, root),
                "pictures inside a subfolder, which is not searched",
                f"move them up into {folder.name} or the subfolder elsewhere",
            )
    for twins in pictures_by_stem(folder).values():
        if len(twins) > 1:
            names = " and ".join(twin.name for twin in twins)
            same = len({twin.stem for twin in twins}) == 1
            how = "" if same else ", their accents stored in two ways"
            found = f"{names} have the same stem{how}"
            yield Fault(name(twins[0], root), found, "keep one or rename one")


def name(path: Path, root: Path) -> str:
    """Return how messages name `path`: relative to the pairs folder where it lies inside.

    >>> name(Path("/data/dog/images/1.png"), Path("/data/dog"))
    'images/1.png'
    """
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else str(path)


def read_text(path: Path, root: Path, most: int = text.MOST_BYTES) -> str | Fault:
    """Return the file's text (UTF-8, a byte order mark allowed), or why it cannot be read."""
    try:
        return text.read_text(path, most)
    except text.Unreadable as error:
        return Fault(name(path, root), error.found, error.cure)


def one_line(said: str) -> str:
    """Return a text with every run of white space, line ends included, as one space."""
    return " ".join(said.split())


def instruction_fault(said: str, place: str) -> Fault | None:
    """Say that an instruction or a caption is longer than any is, None where it is not."""
    if len(said) <= LONGEST_TEXT:
        return None
    found = f"{len(said)} characters, of {LONGEST_TEXT} at most"
    return Fault(place, found, "say it shorter: a base reads some fifty words")


def find_picture(value: object, folder: Path, place: str, role: str) -> Path | Fault:
    """Return the picture that a row names, relative to `folder`, or what is wrong with it.

    `role` says what the picture is ("source", "target") in the message.
    """
    match value:
        case str() if value.strip():
            written = value.strip()
        case None | str():
            return Fault(place, f"no {role} picture", "write the path of one picture file")
        case _:
            found = f"{role} is {value!r:.60}, not the path of a picture"
            return Fault(place, found, "write the path of one picture file")
    if re.match(r"[A-Za-z][A-Za-z0-9+.]+:", written):
        found = f"{role} is the address {written[:60]!r}"
        return Fault(place, found, "download the picture and write its path")
    try:
        text.check_path(written)
    except text.Unreadable as error:
        return Fault(place, f"{role}: {error.found}", error.cure)
    path = as_stored(folder / written)
    if not os.path.exists(path) and "\\" in written:
        path = as_stored(folder / written.replace("\\", "/"))
    if os.path.isfile(path):
        if path.suffix.lower() in FOREIGN_SUFFIXES:
            return Fault(place, f"{role} {written} is of a kind that cannot be read", CONVERT)
        return path
    if os.path.isdir(path):
        return Fault(place, f"{role} {written} is a folder", "write the path of one picture file")
    if (found := text.found_at(path)) != text.NOTHING:
        return Fault(place, f"{role} {written} is {found}", "name a picture file")
    return Fault(
        place, f"{role} {written} does not exist", f"{hint(path)}add the file or fix its path"
    )


def hint(path: Path) -> str:
    """Return `did you mean 'x.jpg'? ` for a missing path with a likely neighbour, else nothing."""
    if not os.path.isdir(path.parent):
        return f"folder {path.parent} does not exist: "
    names = [entry.name for entry in visible(path.parent)]
    same = [n for n in names if n.lower() == path.name.lower() or Path(n).stem == path.stem]
    close = same or difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"did you mean {close[0]!r}? " if close else ""
