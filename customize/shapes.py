"""The values that travel between modules, and the letters that name their axes.

B batch · C channels · H W pixels · h w latents · L text positions · D text width · K in-features ·
N out-features. A tensor's name ends in its axes: `latents_BChw`, `text_BLD`, `pixels_HWC`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """One training pair as it lies on disk; `place` names it in messages (`pairs.jsonl:3`).

    The target shows the source edited; `references` are further pictures that the edit looks at.
    """

    source: Path
    instruction: str
    target: Path
    source_caption: str | None = None
    target_caption: str | None = None
    weight: float = 1.0
    place: str = ""
    references: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Example:
    """One pair decoded to equal-sized pixels: uint8 RGB, both cropped and flipped alike.

    References have sizes of their own.
    """

    source_HWC: np.ndarray
    target_HWC: np.ndarray
    instruction: str
    source_caption: str | None = None
    target_caption: str | None = None
    weight: float = 1.0
    references_HWC: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """One example after the base's encoders, as the cache keeps it (CPU, float32).

    The target's latent is a distribution (mean and deviation, scaled as the denoiser sees it)
    because InstructPix2Pix samples it anew at every step; the source's is its mode. `conditions` is
    opaque outside the family that made it: unbatched tensors by name.
    """

    target_mean_Chw: Tensor
    target_std_Chw: Tensor
    conditions: Mapping[str, Tensor]


Conditions = Mapping[str, "Tensor"]
"""What the denoiser is told besides noise: batched tensors by name, opaque outside the family."""
