"""Edit pictures with a base and any number of adapters; sampling is diffusers' own pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from PIL import Image

from customize import __version__
from customize.editing.adapters_in_use import AdaptersInUse
from customize.editing.device import device_for
from customize.editing.edited_picture import Edited, Settings
from customize.editing.options import (
    EditOptions,
    Picture,
    check_request,
    check_sources,
    keeps_unchanged,
    resized,
    upright_rgb,
    warn_of_lost_detail,
    warn_of_unknown_words,
    working_size,
)
from customize.editing.sample_pictures import (
    as_unedited,
    at_source_size,
    begin_carrying,
    sample_pictures,
)
from customize.editing.samplers import scheduler_for
from customize.families import profile_of
from customize.families.sampling_defaults import own_way

if TYPE_CHECKING:
    import torch

    from customize.editing.folders.items import Item
    from customize.editing.folders.plan import How
    from customize.errors import Fault
    from customize.families.base import Base, WeightPrecision


class Editor:
    """A base opened for editing and the adapters in use on it."""

    def __init__(self, pipeline: Any, base: Base) -> None:
        """Take over diffusers' `pipeline` of `base`; `from_base` opens one."""
        self.pipeline, self.base = pipeline, base
        self._own_scheduler = pipeline.scheduler
        self._adapters = AdaptersInUse(pipeline)

    @classmethod
    def from_base(
        cls,
        name: str = "embedded",
        *,
        revision: str | None = None,
        precision: WeightPrecision = "auto",
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> Self:
        """Open a base by name; `device` None takes the accelerator if any, `progress` shows a bar.

        Raises BaseModelError, and EditError for a device that is not here.
        """
        from customize.families import open_pipeline
        from customize.families.base import resolve_base

        place = device_for(device)
        base = resolve_base(name, revision, precision)
        if base.notice is not None:
            warnings.warn(f"base {name!r}: {base.notice}", stacklevel=2)
        pipeline = open_pipeline(base, device=place)
        # disable=None is tqdm's "only on a terminal"
        pipeline.set_progress_bar_config(disable=None if progress else True, leave=False)
        return cls(pipeline, base)

    def load(self, path: Path | str, strength: float = 1.0) -> Self:
        """Add an adapter to those in use, its change multiplied by `strength`; return the editor.

        Warns when it was made for other weights. Raises AdapterFileError, leaving the editor as it
        was.
        """
        self._adapters.add(Path(path), strength, self.base)
        return self

    def unload(self) -> Self:
        """Take every adapter off: the base's own edits again, bit for bit."""
        self._adapters.clear()
        return self

    def scale(self, factor: float) -> Self:
        """Multiply the strength of every adapter, loaded now or later, by `factor`; 1 undoes it."""
        self._adapters.scale(factor)
        return self

    def edit(
        self,
        image: Picture,
        instruction: str,
        *,
        further: Sequence[Picture] = (),
        **options: Unpack[EditOptions],
    ) -> Edited:
        """Edit a picture of any size by an instruction; see `chain`."""
        return self.chain(image, [instruction], further=further, **options)[0]

    def chain(
        self,
        image: Picture,
        instructions: Sequence[str],
        *,
        further: Sequence[Picture] = (),
        **options: Unpack[EditOptions],
    ) -> list[Edited]:
        """Apply instructions one after another and return every stage.

        The picture is scaled (Lanczos) to the area the base works at, in the size nearest its own
        shape that the base can take, and stays so from stage to stage. Each stage returned is
        brought to the size of `image`, as `detail` says. What a stage hardly moved stays as it was;
        `keep_unchanged=False` makes each stage an edit of its own.
        Bases that read several sources look at the `further` pictures in every stage.

        Raises EditError for options out of range, PairsError for a file that is no usable picture.
        """
        source, others = upright_rgb(image), self._further(further)
        self.prepare(instructions, options)
        settings = self.settings(source.size, options)
        if settings.detail == "scaled":
            warn_of_lost_detail(source.size, (settings.width, settings.height))
        settings = replace(
            settings,
            keep_unchanged=keeps_unchanged(instructions, options),
            further_sources=len(others),
        )
        current, stages = resized(source, (settings.width, settings.height)), list[Edited]()
        (carried,) = begin_carrying([settings])
        (plain,) = as_unedited(self.pipeline, [source], [settings], 1)
        for index, instruction in enumerate(instructions):
            earlier = tuple(instructions[:index])
            settings = replace(settings, instruction=instruction, earlier=earlier)
            (current,) = sample_pictures(
                self.pipeline, [current], [settings], 1, [carried], [others]
            )
            stages.append(Edited(at_source_size(source, current, plain), settings))
        return stages

    def batch(
        self,
        images: Sequence[Picture],
        instructions: Sequence[str],
        *,
        at_once: int = 8,
        further: Sequence[Sequence[Picture]] | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Edited]:
        """Edit every picture by its own instruction, up to `at_once` of one size together.

        Picture i starts from the noise of seed + i: `edit` makes it again, up to rounding, by the
        seed in its settings. `further` are more sources of each picture, where the base reads them.
        Raises as `chain` does.
        """
        assert len(images) == len(instructions) == len(further or images)
        sources = [upright_rgb(image) for image in images]
        others = [self._further(pictures) for pictures in further or [()] * len(images)]
        self.prepare(instructions, options)
        settings = [
            replace(
                filled,
                instruction=instruction,
                seed=filled.seed + index,
                further_sources=len(others[index]),
            )
            for index, (source, instruction) in enumerate(zip(sources, instructions, strict=True))
            for filled in [self.settings(source.size, options)]
        ]
        carried = begin_carrying(settings)
        answers = sample_pictures(self.pipeline, sources, settings, at_once, carried, others)
        plain = as_unedited(self.pipeline, sources, settings, at_once)
        return [
            Edited(at_source_size(source, answer, own), filled)
            for source, answer, own, filled in zip(sources, answers, plain, settings, strict=True)
        ]

    def edit_many(
        self,
        items: Iterable[Item],
        how: How | None = None,
        *,
        at_once: int | None = None,
        **options: Unpack[EditOptions],
    ) -> Iterator[tuple[Item, Edited | Fault]]:
        """Edit any number of pictures alike, and yield each as it is made, sizes together.

        How much is in memory does not grow with their number. A picture that cannot be edited comes
        with the reason. `at_once` None takes what memory allows. Raises as `chain` does for what
        concerns all.
        """
        from customize.editing.folders.many import edit_many

        return edit_many(self, items, how, at_once, options)

    def prepare(self, instructions: Sequence[str], options: EditOptions) -> None:
        """Check what is asked and set the sampler; raises EditError, warns of unknown words."""
        check_request(instructions, options)
        known = self.pipeline.tokenizer.get_vocab().keys()
        warn_of_unknown_words(instructions, known, self._adapters.words())
        profile = profile_of(self.base.family)
        if options.get("image_guidance", 1) != 1 and not profile.guides_by_source:
            reason = "this base is guided by the text alone"
            warnings.warn(f"image_guidance has no effect: {reason}", stacklevel=4)
        chosen = scheduler_for(options.get("scheduler"), self._own_scheduler, profile)
        self.pipeline.scheduler = chosen

    def settings(self, size: tuple[int, int], options: EditOptions) -> Settings:
        """Fill in the base's own way for a picture of `size` (W, H), after `prepare`."""
        own, detail = own_way(self.base)
        width, height = working_size(
            *size,
            resolution=options.get("resolution", self.base.resolution),
            multiple=self.base.edit_multiple,
            least=self.base.least_side,
        )
        return Settings(
            instruction="",
            base=_without_folders(self.base.name),
            base_fingerprint=self.base.fingerprint,
            steps=options.get("steps", own.steps),
            scheduler=type(self.pipeline.scheduler).__name__,
            seed=options.get("seed", 0),
            text_guidance=float(options.get("text_guidance", own.text_guidance)),
            image_guidance=float(options.get("image_guidance", own.image_guidance)),
            width=width,
            height=height,
            adapters=self._adapters.used(),
            version=__version__,
            keep_unchanged=options.get("keep_unchanged", False),
            detail=options.get("detail", detail),
        )

    def _further(self, pictures: Sequence[Picture]) -> tuple[Image.Image, ...]:
        """Open further sources; raises EditError where the base reads one alone."""
        if pictures:
            check_sources(1 + len(pictures), self.base.name, profile_of(self.base.family))
        return tuple(upright_rgb(picture) for picture in pictures)


def _without_folders(name: str) -> str:
    """Keep hub ids and relative paths; absolute ones tell too much of a machine to be shared."""
    return Path(name).name if Path(name).is_absolute() else name
