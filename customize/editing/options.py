"""What an edit starts from: options checked, pictures upright, and the size the base works at."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast, get_args

from PIL import Image

from customize.errors import AdapterFileError, EditError
from customize.families.profile import Profile
from customize.families.sampling_defaults import Detail
from customize.pairs.decode import load_picture, upright

LONGEST = 4
"""Sides are at most this many times the base's resolution, however long the picture is."""

SHRUNK = 2
"""Times by which a side may shrink without a word."""

_WORD = re.compile(r"<[a-z0-9]+(?:[-_][a-z0-9]+)*>", re.IGNORECASE)
RANGES: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "steps": (1, 1000),
    "text_guidance": (1, 50),
    "image_guidance": (1, 50),
    "resolution": (16, 4096),
}


Picture = Image.Image | Path | str
"""A picture in memory, or the path of its file."""


class EditOptions(TypedDict, total=False):
    """How to sample; what is left out is the base's own way.

    `scheduler` is a short name (`samplers.CLASSES`), the guidances are 1 or more, `seed`
    decides the noise on every device alike, `resolution` is the side, in pixels, of the square
    whose area the base works at. `keep_unchanged` puts back what an edit hardly moved; left out, a
    chain of several edits does so (`carried_latents`). `detail` "keep" takes the source's own
    pixels and detail where the edit left them, "scaled" only scales the answer (`detail`).
    """

    seed: int
    steps: int
    scheduler: str
    text_guidance: float
    image_guidance: float
    resolution: int
    keep_unchanged: bool
    detail: Detail


def keeps_unchanged(instructions: Sequence[str], options: EditOptions) -> bool:
    """Tell whether what an edit leaves alone is put back: where it is asked for, and in chains."""
    return options.get("keep_unchanged", len(instructions) > 1)


def check_request(instructions: Sequence[str], options: EditOptions) -> None:
    """Refuse empty instructions and options out of range; raises EditError."""
    if not instructions or not all(text.strip() for text in instructions):
        raise EditError('no instruction: expected one such as "make the dog red"; write it')
    for name, (least, most) in RANGES.items():
        value = cast("Mapping[str, float]", options).get(name)
        if value is not None and not least <= value <= most:
            raise EditError(
                f"{name} {value}: expected {least} to {most}; leave it out for the base's"
            )
    detail, known = options.get("detail"), get_args(Detail)
    if detail not in (None, *known):
        raise EditError(
            f"detail {detail!r}: expected {' or '.join(known)}; leave it out for the base's"
        )
    if options.get("text_guidance") == 1 and options.get("image_guidance", 1) != 1:
        # diffusers' pipeline guides by both or, at a text guidance of 1, by none
        warnings.warn(
            "image_guidance has no effect while text_guidance is 1; raise text_guidance",
            stacklevel=5,
        )


def check_sources(count: int, base: str, profile: Profile) -> None:
    """Refuse several source pictures where a base reads one; raises EditError."""
    if count > 1 and not profile.reads_references:
        raise EditError(
            f"{count} source pictures: the base {base!r} reads one; expected one picture; leave "
            "the others out, or name a base that reads several"
        )


def warn_of_unknown_words(
    instructions: Sequence[str], vocabulary: Collection[str], taught: Sequence[str]
) -> None:
    """Warn of words like `<my-dog>` that the base would only spell out, letter by letter."""
    named = {word.lower() for text in instructions for word in _WORD.findall(text)}
    cure = f"those in use teach {', '.join(taught)}" if taught else "load the one that does"
    for word in sorted(word for word in named if word not in vocabulary):
        warnings.warn(f"no adapter in use teaches the word {word}; {cure}", stacklevel=5)


def warn_of_lost_detail(size: tuple[int, int], working: tuple[int, int]) -> None:
    """Warn where a picture of `size` (W, H) is made less than half as large to be worked at."""
    factor = math.sqrt(math.prod(size) / math.prod(working))
    if factor > SHRUNK:
        warnings.warn(
            f"the picture is {size[0]}x{size[1]} pixels, and the base works at "
            f"{working[0]}x{working[1]}: its finer detail is lost; `--detail keep` puts it "
            "back where the edit left it alone, a higher resolution keeps more of it",
            stacklevel=4,
        )


def with_words_as_taught(instruction: str) -> str:
    """Write marked words as they were taught: `<My-Dog>` would not be expanded to all its vectors.

    >>> with_words_as_taught("Paint <My-Dog> blue")
    'Paint <my-dog> blue'
    """
    return _WORD.sub(lambda found: found.group().lower(), instruction)


def upright_rgb(image: Image.Image | Path | str) -> Image.Image:
    """Return the picture upright and opaque (on white); raises PairsError for an unusable file."""
    if not isinstance(image, Image.Image):
        return load_picture(Path(image))
    turned = upright(image)
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    opaque = Image.new("RGBA", turned.size, "white")
    return Image.alpha_composite(opaque, turned.convert("RGBA")).convert("RGB")


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale to `size` (W, H) by Lanczos; a picture of that size is returned as it is."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def working_size(
    width: int, height: int, *, resolution: int, multiple: int, least: int
) -> tuple[int, int]:
    """Return the (W, H) an edit is made at: about `resolution`² pixels in the picture's own shape.

    Sides are multiples of `multiple`, at least `least`. Pixels throughout.

    >>> working_size(4000, 3000, resolution=512, multiple=8, least=64)
    (592, 440)
    """
    scale = resolution / math.sqrt(width * height)
    most = LONGEST * resolution

    def side(length: int) -> int:
        return max(least, min(most, round(length * scale / multiple) * multiple))

    return side(width), side(height)


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the least (W, H) that holds a picture and divides by `multiple`; pixels.

    >>> padded_size((2000, 64), 64)
    (2048, 64)
    """
    width, height = (-(-side // multiple) * multiple for side in size)
    return width, height


def with_strength(text: str, called: str = "strength") -> tuple[Path, float]:
    """Split `FILE:0.8`; a colon that is part of a file's name stays there.

    Raises AdapterFileError, saying what the number is `called`, for a file and no number.
    """
    path, colon, strength = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        return Path(path), float(strength)
    except ValueError:
        if Path(path).exists():
            raise AdapterFileError(
                f"adapter {text}: {strength!r} is no {called}; expected a number such as 0.8; "
                f"write {path}:0.8"
            ) from None
        return Path(text), 1.0
