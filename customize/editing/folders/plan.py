"""Every setting of every edit, filled in before the first is made, and which are made together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from customize.editing.edited_picture import Settings
from customize.editing.folders.items import Item
from customize.editing.folders.manifest import described, key_of
from customize.editing.masks import AUTO, Mask
from customize.editing.options import EditOptions, keeps_unchanged, padded_size
from customize.editing.sample import MOST_AT_ONCE, at_once_on_cpu
from customize.errors import EditError, Fault, PairsError
from customize.families import profile_of
from customize.pairs.decode import upright_size

if TYPE_CHECKING:
    from customize.editing import Editor


@dataclass(frozen=True)
class How:
    """In what way all pictures of a run are edited.

    `seeds` "shared" starts every picture from the same field of noise, "each" every picture from a
    seed made from its name, so that pictures may be added without changing others. `tiles` works at
    the picture's own size in overlapping tiles. `fast` leaves out work at a price in likeness
    (`step_savings`).
    """

    seeds: Literal["shared", "each"] = "shared"
    tiles: bool = False
    fast: bool = False


@dataclass(frozen=True)
class Edit:
    """An item with all that its answer follows from; `size` is the picture's (W, H) as shown."""

    item: Item
    size: tuple[int, int]
    settings: Settings

    @property
    def working(self) -> tuple[int, int]:
        """The (W, H) that the base works at."""
        return self.settings.width, self.settings.height

    def kind(self) -> tuple[object, ...]:
        """Return what edits share that can be made together."""
        own, item = self.settings, self.item
        sampling = own.steps, own.text_guidance, own.image_guidance
        masked = any(mask is not None and mask.auto for mask in item.masks)
        return item.strength, self.working, sampling, len(item.instructions), masked, own.tiles

    def key(self) -> str:
        """Name all that the answer follows from besides the picture: masks by their content."""
        masks = [None if mask is None else _content(mask) for mask in self.item.masks]
        return key_of({"settings": asdict(self.settings), "masks": masks})


def _content(mask: Mask) -> object:
    if mask.file is None:
        return mask.region or AUTO
    return described(mask.file).sha256


def plan_edits(
    editor: Editor, items: Iterable[Item], options: EditOptions, how: How
) -> Iterator[Edit | Fault]:
    """Fill in the settings of every item, or say why its picture cannot be edited.

    Of a picture only the head is read. Raises EditError for options out of range.
    """
    can_hold = profile_of(editor.base.family).holds_steps
    size_of = cache(upright_size)  # one mask may serve every picture
    for item in items:
        if not can_hold and (item.masks or how.tiles or how.fast):
            raise EditError(
                "masks, --tiles and --fast hold or leave out parts of steps; expected none with "
                f"{editor.base.name}, whose steps are its pipeline's own; leave them out"
            )
        own = {
            name: value
            for name in ("text_guidance", "image_guidance")
            if (value := getattr(item, name)) is not None
        }
        each: EditOptions = {**options, **own}  # type: ignore[typeddict-item]
        seed = item.seed if item.seed is not None else options.get("seed", 0)
        if how.seeds == "each" and item.seed is None:
            seed = (seed + zlib.crc32(item.place.encode("utf-8", "surrogateescape"))) % 2**63
        try:
            _check_masks(item, size_of)
            size = upright_size(item.image)
            settings = editor.settings(size, {**each, "seed": seed})
            settings = _scaled(settings, item.strength)
        except PairsError as error:
            yield replace(error.faults[0], place=item.place)
            continue
        *earlier, last = item.instructions
        if how.tiles:
            width, height = padded_size(size, editor.base.multiple)
            settings = replace(settings, width=width, height=height)
        yield Edit(
            item,
            size,
            replace(
                settings,
                instruction=last,
                earlier=tuple(earlier),
                noise="field" if how.seeds == "shared" else "own",
                tiles=how.tiles,
                fast=how.fast,
                keep_unchanged=not item.masks and keeps_unchanged(item.instructions, options),
                masks=tuple(map(_named, item.masks)),
            ),
        )


def _check_masks(item: Item, size_of: Callable[[Path], object]) -> None:
    """Raise PairsError for a mask that is no picture, before it is waited for."""
    for file in [mask.file for mask in item.masks if mask is not None and mask.file is not None]:
        try:
            size_of(file)
        except PairsError as error:
            fault = error.faults[0]
            named = replace(fault, found=f"mask {file.name}: {fault.found}")
            raise PairsError("mask", [named]) from None


def _scaled(settings: Settings, strength: float) -> Settings:
    """Note the adapters' strengths as an item multiplies them."""
    used = (replace(one, strength=one.strength * strength) for one in settings.adapters)
    return replace(settings, adapters=tuple(used))


def _named(mask: Mask | None) -> str:
    """Write a mask as the settings of a picture tell it; folders are private."""
    if mask is None:
        return ""
    if mask.region is not None:
        return ",".join(map(str, mask.region))
    return mask.file.name if mask.file is not None else AUTO


def together(edits: Sequence[Edit], at_once: int) -> list[tuple[Edit, ...]]:
    """Group edits that one call can make, `at_once` at most; strengths stay side by side.

    A group follows from the list alone, so that a run that goes on makes the same ones: what a
    picture is sampled with decides its last bits.
    """
    kinds: dict[tuple[object, ...], list[Edit]] = {}
    for edit in sorted(edits, key=lambda edit: edit.item.strength):
        kinds.setdefault(edit.kind(), []).append(edit)
    return [
        tuple(alike[start : start + at_once])
        for alike in kinds.values()
        for start in range(0, len(alike), at_once)
    ]


def pictures_at_once(editor: Editor) -> int:
    """Choose how many pictures of the base's own size to sample together.

    On a CPU as many as fill its caches usefully, on a GPU as fit in what memory is free.
    """
    import torch

    cells = (editor.base.resolution // editor.pipeline.vae_scale_factor) ** 2
    if editor.pipeline.device.type != "cuda":
        return at_once_on_cpu(cells)
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(MOST_AT_ONCE, int(0.6 * free) // (3 * cells * _GPU_BYTES)))


_GPU_BYTES = 48 * 1024
"""Bytes a latent pixel takes at most in a UNet of Stable Diffusion's width, in half precision."""


def same_size(picture: Image.Image, edit: Edit) -> None:
    """Refuse a picture that changed between planning and editing; raises EditError."""
    if picture.size != edit.size:
        raise EditError(
            f"{edit.item.place}: it changed while the run went on, to "
            f"{picture.width}x{picture.height} pixels; start the command again"
        )
