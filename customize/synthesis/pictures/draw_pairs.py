"""Draw both pictures of several edits in one call of diffusers' own text-to-image pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from customize.drawing.contact_sheet import to_picture
from customize.errors import SynthesisError
from customize.synthesis.pictures.alignment import align
from customize.synthesis.pictures.local_blend import START, SeenMaps
from customize.synthesis.pictures.shared_attention import (
    Sharing,
    guiding_each,
    sharing_attention,
)
from customize.synthesis.writing.rewrite import Rewrite


@dataclass(frozen=True)
class PairSettings:
    """How one pair is drawn: its noise, its guidance, and until which share of the steps it shares.

    `blend` keeps the first picture where the changed words are not looked at.
    """

    seed: int
    guidance: float = 7.5
    self_until: float = 0.5
    cross_until: float = 0.0
    blend: bool = False

    def facts(self) -> dict[str, float | int | bool]:
        """Return them as plain values, for the provenance."""
        return asdict(self)


@dataclass(frozen=True)
class DrawnPair:
    """Both pictures of an edit, and how they were drawn."""

    rewrite: Rewrite
    settings: PairSettings
    first: Image.Image
    second: Image.Image


@torch.no_grad()
def draw_pairs(
    pipeline: Any,
    wanted: Sequence[tuple[Rewrite, PairSettings]],
    *,
    steps: int,
    size: tuple[int, int],
    mixed: bool = False,
) -> list[DrawnPair]:
    """Draw each edit's two captions from the same noise; `size` is (W, H) in pixels.

    `mixed` computes in bfloat16, on a CPU. Both pictures of a pair take the same initial and
    ancestral noise, that of its seed on every device. Raises SynthesisError when memory runs out or
    pixels are no numbers.
    """
    pairs = [_sharing(pipeline, rewrite, settings) for rewrite, settings in wanted]
    maps = _maps(pipeline, pairs, wanted, size)
    texts = [text for rewrite, _ in wanted for text in (rewrite.caption, rewrite.edited_caption)]
    seeds = [settings.seed for _, settings in wanted for _ in range(2)]
    guidances = [settings.guidance for _, settings in wanted]

    def blend(_: Any, step: int, __: Any, held: dict[str, Any]) -> dict[str, Any]:
        if maps is None or step + 1 <= START * steps:
            return {}
        return {"latents": maps.blended(held["latents"])}

    try:
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=mixed),
            sharing_attention(pipeline, pairs, maps),
            guiding_each(pipeline.unet, guidances) as guidance,
        ):
            pixels_BHWC: np.ndarray = pipeline(
                texts,
                width=size[0],
                height=size[1],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                callback_on_step_end=blend,
                output_type="np",
            ).images
    except torch.OutOfMemoryError:
        raise SynthesisError(
            f"out of memory drawing {len(wanted)} pairs of {size[0]}x{size[1]} pixels at once; "
            "expected them to fit; lower pictures.at_once"
        ) from None
    if not np.isfinite(pixels_BHWC).all():
        raise SynthesisError(
            "the base drew pixels that are no numbers; expected finite ones; set "
            "pictures.precision: float32"
        )
    drawn = [to_picture(pixels_HWC) for pixels_HWC in pixels_BHWC]
    return [
        DrawnPair(rewrite, settings, drawn[2 * n], drawn[2 * n + 1])
        for n, (rewrite, settings) in enumerate(wanted)
    ]


def _sharing(pipeline: Any, rewrite: Rewrite, settings: PairSettings) -> Sharing:
    aligned = None
    if settings.cross_until > 0 or settings.blend:
        aligned = align(pipeline.tokenizer, rewrite.caption, rewrite.edited_caption)
    return Sharing(settings.self_until, settings.cross_until, aligned)


def _maps(
    pipeline: Any,
    pairs: Sequence[Sharing],
    wanted: Sequence[tuple[Rewrite, PairSettings]],
    size: tuple[int, int],
) -> SeenMaps | None:
    if not any(settings.blend for _, settings in wanted):
        return None
    scale = pipeline.vae_scale_factor
    blended = [
        pair.alignment if settings.blend else None
        for pair, (_, settings) in zip(pairs, wanted, strict=True)
    ]
    return SeenMaps(blended, (size[1] // scale, size[0] // scale))
