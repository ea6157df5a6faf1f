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
    """Return the settings that a base was measured with, else its family's.

    Raises BaseModelError when the base's own file cannot be understood.
    """
    from customize.families import profile_of

    written = _own_way(base)
    return base.sampling or profile_of(base.family).sampling if written is None else written[0]


def detail_of(base: Base) -> Detail:
    """Return how a base's answers are brought to size: scaled, where it does not say otherwise.

    Raises BaseModelError when the base's own file cannot be understood.
    """
    written = _own_way(base)
    return "scaled" if written is None else written[1]


def _own_way(base: Base) -> tuple[Sampling, Detail] | None:
    """Read what a base says of itself; None where it says nothing."""
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
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(
            f"{path}: it cannot be understood ({type(error).__name__}: {error}); expected "
            "edit.steps, edit.text_guidance, edit.image_guidance and, where it is there, "
            "edit.detail, scaled or keep",
            "remove it or write it anew",
        ) from None
    return sampling, detail
