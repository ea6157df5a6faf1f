"""How a base is edited with where nothing is said: its own way, from `customize.json` beside its
weights, or the one published with its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from customize.errors import BaseModelError
from customize.files.parse import load_json

if TYPE_CHECKING:
    from customize.families.base import Base

Detail = Literal["scaled", "keep"]
"""How an answer is brought to its source's size: scaled alone, or with the source's own pixels and
detail where the edit left them (`editing.detail`).
"""


@dataclass(frozen=True)
class Sampling:
    """Steps and the two guidances an edit takes where the user names none."""

    steps: int
    text_guidance: float
    image_guidance: float


def sampling_of(base: Base) -> Sampling:
    """Return the sampler settings of a base's `own_way`; raises as that does."""
    return own_way(base)[0]


def own_way(base: Base) -> tuple[Sampling, Detail]:
    """Return the settings that a base was measured with, else its family's, and how its answers are
    brought to size: scaled, where it does not say otherwise.

    Raises BaseModelError when the base's own file cannot be understood.
    """
    from customize.families import profile_of

    path = base.folder / "customize.json"
    try:
        written: Any = load_json(path)["edit"]
        sampling = Sampling(
            steps=int(written["steps"]),
            text_guidance=float(written["text_guidance"]),
            image_guidance=float(written["image_guidance"]),
        )
        detail = written.get("detail", "scaled")
        if detail not in get_args(Detail):
            raise ValueError(f"edit.detail is {detail!r}")
    except FileNotFoundError:
        return base.sampling or profile_of(base.family).sampling, "scaled"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({type(error).__name__}: {error}); expected "
            "edit.steps, edit.text_guidance, edit.image_guidance and, where it is there, "
            "edit.detail, scaled or keep",
            "remove it or write it anew",
        ) from None
    return sampling, detail
