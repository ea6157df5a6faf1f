"""Edits made while training, by diffusers' own pipeline around the live denoiser.

The rest of the pipeline, the VAE above all, is loaded for each preview and freed after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from customize.adapters import Attached
from customize.drawing.contact_sheet import contact_sheet
from customize.editing.sample import Request, sample
from customize.editing.samplers import scheduler_for
from customize.families import Family, open_pipeline
from customize.families.base import Base
from customize.families.sampling_defaults import Sampling
from customize.families.words import replace_words
from customize.shapes import Example

TITLES = ("source", "instruction", "before", "after", "target")


@dataclass(frozen=True)
class PreviewEdit:
    """One edit that every preview makes; without a target its example repeats the source."""

    example: Example
    held_out: bool
    has_target: bool = True

    @property
    def scored(self) -> bool:
        """Whether the edit is measured: it is not trained on, and what it should be is known."""
        return self.held_out and self.has_target


@dataclass(frozen=True)
class Preview:
    """A sheet, and the mean squared error (pixels in 0..1) of each held-out edit with a target."""

    sheet: Image.Image
    errors: tuple[float, ...]


class Previewer:
    """Makes previews of one run; remembers the base's own edits, which are the same every time."""

    def __init__(
        self,
        base: Base,
        family: Family,
        attached: Attached,
        shown: Sequence[PreviewEdit],
        sampling: Sampling,
        *,
        device: torch.device,
        scheduler: str | None = None,
        seed: int = 0,
        at_once: int = 1,
    ) -> None:
        """Take the unwrapped family; `at_once` edits are sampled together.

        `scheduler` is one of `editing_schedulers`, None the base's own. `edits` names what is
        measured.
        """
        assert shown
        self._scheduler = scheduler
        self._base, self._family, self._attached = base, family, attached
        self._shown, self._sampling = tuple(shown), sampling
        self._device, self._seed, self._at_once = device, seed, at_once
        self._before: list[np.ndarray] | None = None
        self.edits = self._name_edits()

    def make(self) -> Preview:
        """Edit with the adapter as it is now; no random state but its own is touched."""
        pipeline = self._open()
        try:
            if self._before is None:
                with self._attached.switched_off():
                    self._before = self._edit(pipeline, self._plainly)
            pipeline.register_modules(**self._family.text_encoders, **self._family.tokenizers)
            after = self._edit(pipeline, str)
        finally:
            del pipeline
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return Preview(self._sheet(self._before, after), self._errors(after))

    def _name_edits(self) -> str:
        """Name what is measured and how it is sampled: errors of the same edits can be compared."""
        name = hashlib.sha256(repr((self._sampling, self._scheduler, self._seed)).encode())
        for example in (item.example for item in self._shown if item.scored):
            name.update(example.instruction.encode())
            pictures = (example.source_HWC, example.target_HWC, *example.references_HWC)
            for picture_HWC in pictures:
                name.update(repr(picture_HWC.shape).encode() + picture_HWC.tobytes())
        return name.hexdigest()[:16]

    def _open(self) -> Any:
        """Open the pipeline around the denoiser that learns: no second one is ever loaded."""
        pipeline = open_pipeline(
            self._base,
            device=self._device,
            dtype=self._base.dtype(self._device),
            denoiser=self._family.denoiser,
        )
        pipeline.scheduler = scheduler_for(
            self._scheduler, pipeline.scheduler, self._family.profile
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _plainly(self, instruction: str) -> str:
        """Say a concept's word as the base knows it: by its initializer."""
        plain = {
            word.text: word.initializer or word.text.strip("<>").replace("-", " ")
            for word in self._attached.words
        }
        return replace_words(instruction, plain)

    def _edit(self, pipeline: Any, wording: Callable[[str], str]) -> list[np.ndarray]:
        """Edit everything shown, all from the same noise; (H, W, 3) float in 0..1 each."""
        examples = [item.example for item in self._shown]
        requests = [
            Request(
                Image.fromarray(each.source_HWC),
                wording(each.instruction),
                self._seed,
                references=tuple(map(Image.fromarray, each.references_HWC)),
            )
            for each in examples
        ]
        outputs = sample(pipeline, requests, self._sampling, self._at_once)
        return [np.nan_to_num(output_HWC) for output_HWC in outputs]

    def _errors(self, after: Sequence[np.ndarray]) -> tuple[float, ...]:
        return tuple(
            float(np.mean((output - item.example.target_HWC / 255.0) ** 2))
            for item, output in zip(self._shown, after, strict=True)
            if item.scored
        )

    def _sheet(self, before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> Image.Image:
        rows: list[list[Image.Image | str]] = []
        for item, old, new in zip(self._shown, before, after, strict=True):
            example = item.example
            known = "never trained on" if item.held_out else "trained on"
            target = Image.fromarray(example.target_HWC) if item.has_target else "none known"
            rows.append(
                [
                    Image.fromarray(example.source_HWC),
                    f"{example.instruction}\n\n{known}",
                    _picture(old),
                    _picture(new),
                    target,
                ]
            )
        return contact_sheet(rows, TITLES)


def _picture(pixels_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels_HWC * 255).clip(0, 255).astype(np.uint8))
