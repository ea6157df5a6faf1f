"""Which sampler settings fit a base: its own, from `customize.json` beside its weights, or those
published with its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from customize.errors import BaseModelError
from customize.files.parse import load_json

if TYPE_CHECKING:
    from customize.families.base import Base


@dataclass(frozen=True)
class Sampling:
    """Steps and the two guidances an edit takes where the user names none."""

    steps: int
    text_guidance: float
    image_guidance: float


def sampling_of(base: Base) -> Sampling:
    """Return the settings that a base was measured with, else its family's.

    Raises BaseModelError when the base's own file cannot be understood.
    """
    from customize.families import profile_of

    path = base.folder / "customize.json"
    try:
        written = load_json(path)["edit"]
        return Sampling(
            steps=int(written["steps"]),
            text_guidance=float(written["text_guidance"]),
            image_guidance=float(written["image_guidance"]),
        )
    except FileNotFoundError:
        return base.sampling or profile_of(base.family).sampling
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({type(error).__name__}: {error}); expected "
            "edit.steps, edit.text_guidance and edit.image_guidance",
            "remove it or write it anew",
        ) from None
