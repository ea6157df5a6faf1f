"""Which sampler settings fit a base: its own, from `customize.json` beside its weights, or those
published with its kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from customize.errors import BaseModelError


@dataclass(frozen=True)
class Sampling:
    """Steps and the two guidances an edit takes where the user names none."""

    steps: int
    text_guidance: float
    image_guidance: float


PAPER = Sampling(steps=100, text_guidance=7.5, image_guidance=1.5)
"""InstructPix2Pix on Stable Diffusion 1.5 (Brooks et al. 2023, arXiv 2211.09800, appendix B)."""
XL_CARD = Sampling(steps=30, text_guidance=3.0, image_guidance=1.5)
"""The example of `diffusers/sdxl-instructpix2pix-768`, in its card and in diffusers' docs."""


def sampling_of(folder: Path) -> Sampling:
    """Return the settings that the base in `folder` was measured with, else its kind's.

    Raises BaseModelError when the base's own file cannot be understood.
    """
    path = folder / "customize.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))["edit"]
        return Sampling(
            steps=int(written["steps"]),
            text_guidance=float(written["text_guidance"]),
            image_guidance=float(written["image_guidance"]),
        )
    except FileNotFoundError:
        return XL_CARD if (folder / "text_encoder_2").is_dir() else PAPER
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({type(error).__name__}: {error}); expected "
            "edit.steps, edit.text_guidance and edit.image_guidance",
            "remove it or write it anew",
        ) from None
