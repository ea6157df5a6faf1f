"""Make one group of edits: pictures of one working size, sampled together, to full-size answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customize.editing.auto_mask import auto_masks
from customize.editing.carried_latents import Carried
from customize.editing.controlled import Work, ready_for_many, sample_controlled, unedited
from customize.editing.detail import with_own_detail
from customize.editing.edited_picture import Edited
from customize.editing.folders.plan import Edit, same_size
from customize.editing.masks import composed, drawn, softened, union
from customize.editing.options import resized
from customize.editing.photograph import Photograph
from customize.errors import CustomizeError, EditError

if TYPE_CHECKING:
    from customize.editing import Editor

Group = tuple[Edit, ...]


@dataclass(frozen=True)
class Answer:
    """What sampling made of one picture, at the working size, with what finishing needs.

    `unedited` is what the autoencoder alone makes of the source, `mask` where the picture may
    change, grey, at its own size; both None where they are not needed. `found` are masks that the
    base drew itself, for each such instruction.
    """

    image: Image.Image
    unedited: Image.Image | None = None
    mask: Image.Image | None = None
    found: tuple[Image.Image, ...] = ()


@dataclass
class _InWork:
    """One picture on its way through its instructions.

    `masks` has one for each, grey and of the picture's size, None for those without; that of an
    automatic one is found at its turn, and kept in `found` at the working size.
    """

    edit: Edit
    source: Image.Image
    current: Image.Image
    masks: list[Image.Image | None]
    carried: Carried | None = None
    found: list[Image.Image] = field(default_factory=list)

    def automatic(self, stage: int) -> bool:
        mask = self.edit.item.mask_of(stage)
        return mask is not None and mask.auto

    def changeable(self) -> Image.Image | None:
        """Return where the whole chain may change the picture, None for everywhere."""
        greys = [mask for mask in self.masks if mask is not None]
        return union(greys) if len(greys) == len(self.masks) else None


@contextmanager
def strengths_in_turn(editor: Editor, groups: Sequence[Group]) -> Iterator[Iterator[Group]]:
    """Yield groups in order, the adapters at each one's strength; at the end they are as before.

    What encoders answered is kept until the strength changes, which may change their weights.
    """

    def each() -> Generator[Group]:
        for strength, alike in groupby(groups, key=lambda group: group[0].item.strength):
            editor.scale(strength)
            with ready_for_many(editor.pipeline):
                yield from alike

    turns = each()
    try:
        yield turns
    finally:
        turns.close()
        editor.scale(1.0)


def make_group(
    editor: Editor, group: Group, photographs: Mapping[Edit, Photograph | CustomizeError]
) -> dict[Edit, Answer | CustomizeError]:
    """Sample every picture of a group, instruction after instruction.

    A picture that could not be read keeps its error; one whose mask is wrong gets one.
    """
    failed: dict[Edit, Answer | CustomizeError] = {}
    working: list[_InWork] = []
    for edit in group:
        photograph = photographs[edit]
        try:
            if isinstance(photograph, CustomizeError):
                raise photograph
            working.append(_started(edit, photograph))
        except CustomizeError as error:
            failed[edit] = error
    for stage in range(len(group[0].item.instructions)):
        if working:
            failed |= _make_stage(editor, working, stage)
            working = [one for one in working if one.edit not in failed]
    plain: Sequence[Image.Image | None] = [None] * len(working)
    if working and group[0].settings.detail == "keep":
        plain = unedited(editor.pipeline, [one.source for one in working])
    return failed | {
        one.edit: Answer(one.current, own, one.changeable(), tuple(one.found))
        for one, own in zip(working, plain, strict=True)
    }


def _started(edit: Edit, photograph: Photograph) -> _InWork:
    same_size(photograph.srgb, edit)
    source = at_working_size(photograph.srgb, edit)
    masks = [edit.item.mask_of(stage) for stage in range(len(edit.item.instructions))]
    greys = [None if mask is None or mask.auto else drawn(mask, edit.size) for mask in masks]
    carried = Carried() if edit.settings.keep_unchanged else None
    return _InWork(edit, source, source, greys, carried)


def _make_stage(
    editor: Editor, working: Sequence[_InWork], stage: int
) -> dict[Edit, CustomizeError]:
    """Apply each picture's instruction of this number, inside its mask; return what failed."""
    settings, tile = working[0].edit.settings, editor.base.resolution
    try:
        works = _works(editor, working, stage)
        answers = sample_controlled(editor.pipeline, works, settings, tile=tile)
    except EditError as error:  # out of memory even for one
        return dict.fromkeys((one.edit for one in working), error)
    failed: dict[Edit, CustomizeError] = {}
    for one, work, answer_HWC in zip(working, works, answers, strict=True):
        if not np.isfinite(answer_HWC).all():
            failed[one.edit] = EditError(
                f"{work.instruction!r}: the base answered with pixels that are no numbers; "
                "open the base in float32, or lower guidance or strength"
            )
            continue
        (made,) = editor.pipeline.image_processor.numpy_to_pil(answer_HWC)
        if work.mask is not None:
            made = composed(made, one.current, softened(work.mask))
        one.current = made
    return failed


def _works(editor: Editor, working: Sequence[_InWork], stage: int) -> list[Work]:
    """Say what the sampler is to do, after drawing the masks that the base draws itself."""
    works = [
        Work(
            one.current,
            one.edit.item.instructions[stage],
            one.edit.settings.seed,
            carried=one.carried,
        )
        for one in working
    ]
    automatic = [index for index, one in enumerate(working) if one.automatic(stage)]
    asked, settings = [works[index] for index in automatic], working[0].edit.settings
    found = auto_masks(editor.pipeline, asked, settings, editor.base.resolution)
    for index, mask in zip(automatic, found, strict=True):
        working[index].found.append(mask)
        working[index].masks[stage] = at_own_size(mask, working[index].edit)
    return [
        work
        if (grey := one.masks[stage]) is None
        else replace(work, mask=at_working_size(grey, one.edit))
        for one, work in zip(working, works, strict=True)
    ]


def finished(answer: Answer, photograph: Photograph, edit: Edit) -> Edited:
    """Bring an answer to its picture's size, colours and transparency."""
    if answer.unedited is None:
        image = at_own_size(answer.image, edit)
    else:
        parts = (answer.image, answer.unedited)
        if edit.settings.tiles:  # of the picture's own size: only the padding goes
            parts = tuple(at_own_size(part, edit) for part in parts)
        image = with_own_detail(photograph.srgb, *parts)
    image = photograph.in_own_colors(image)
    if answer.mask is not None:
        image = composed(image, photograph.own, softened(answer.mask))
    if photograph.alpha is not None:
        image = image.copy()
        image.putalpha(photograph.alpha)
    return Edited(image, edit.settings, photograph.kept)


def at_working_size(image: Image.Image, edit: Edit) -> Image.Image:
    """Scale to the size the base works at; for tiles the edge is repeated up to that size."""
    if not edit.settings.tiles:
        return resized(image, edit.working)
    width, height = edit.working
    pixels: Any = np.asarray(image)
    beyond = [(0, height - image.height), (0, width - image.width), (0, 0)][: pixels.ndim]
    return Image.fromarray(np.pad(pixels, beyond, mode="edge"))


def at_own_size(image: Image.Image, edit: Edit) -> Image.Image:
    """Undo `at_working_size`."""
    if edit.settings.tiles:
        return image.crop((0, 0, *edit.size))
    return resized(image, edit.size)
