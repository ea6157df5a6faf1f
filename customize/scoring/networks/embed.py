"""Embed every picture and text that some metrics look at, each once and never again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from customize.errors import Fault, PairsError
from customize.pairs.decode import load_picture
from customize.scoring.items import Item, MetricName, Models, Picture
from customize.scoring.networks.store import Store

CODE_VERSION = 2
"""Raise it whenever a number changes that is kept in a store; old ones are then left unread."""

_CLIP_PICTURES: Mapping[MetricName, tuple[str, ...]] = {
    "clip_image": ("source", "output"),
    "clip_direction": ("source", "output"),
    "clip_instruction": ("source", "output"),
    "clip_text": ("output",),
    "clip_concept": ("output", "references"),
}
_DINO_PICTURES: Mapping[MetricName, tuple[str, ...]] = {"dino_concept": ("output", "references")}
_CLIP_TEXTS: Mapping[MetricName, tuple[str, ...]] = {
    "clip_direction": ("source_caption", "target_caption"),
    "clip_instruction": ("wording",),
    "clip_text": ("target_caption",),
}


class Contents:
    """Name pictures by what is in them: a file's bytes, or the pixels of one in memory."""

    def __init__(self) -> None:
        """Begin with no picture known."""
        self._known: dict[int | str, str] = {}

    def key(self, picture: Picture) -> str:
        """Return the picture's sha256; raises PairsError for a file that cannot be read."""
        handle = id(picture) if isinstance(picture, Image.Image) else str(picture)
        if handle not in self._known:
            self._known[handle] = hashlib.sha256(_bytes(picture)).hexdigest()
        return self._known[handle]

    def compared(self, metric: MetricName, *pictures: Picture) -> str:
        """Return the key in a store of what a metric makes of these pictures' pixels."""
        return " ".join([metric, str(CODE_VERSION), *map(self.key, pictures)])


@dataclass(frozen=True)
class Vectors:
    """Unit vectors (D,) by content; those of a model that was not named are None."""

    contents: Contents
    clip_pictures: Mapping[str, Tensor] | None
    clip_texts: Mapping[str, Tensor] | None
    dino_pictures: Mapping[str, Tensor] | None


def opened(picture: Picture) -> Image.Image:
    """Return the picture upright and opaque, in RGB; raises PairsError for an unusable file."""
    return picture if isinstance(picture, Image.Image) else load_picture(Path(picture))


def embed(
    items: Sequence[Item],
    models: Models,
    metrics: Sequence[MetricName],
    *,
    at_once: int,
    progress: bool,
) -> Vectors:
    """Embed what `metrics` look at in `items`; what the store holds is taken from there."""
    contents = Contents()

    def pictures(needs: Mapping[MetricName, tuple[str, ...]]) -> dict[str, Picture]:
        return {contents.key(p): p for p in _listed(items, metrics, needs)}

    def vectors(
        what: str, fingerprint: str, things: Mapping[str, object], make: Callable[..., Tensor]
    ) -> dict[str, Tensor]:
        start = f"{what} {CODE_VERSION} {fingerprint} "
        return _through(models.store, start, things, make, at_once, what if progress else None)

    clip, dino = models.clip, models.dino
    clip_pictures = clip_texts = dino_pictures = None
    if clip is not None:
        texts = {str(text): text for text in _listed(items, metrics, _CLIP_TEXTS)}
        clip_texts = vectors("CLIP texts", clip.fingerprint, texts, clip.text_BD)
        clip_pictures = vectors(
            "CLIP pictures",
            clip.fingerprint,
            pictures(_CLIP_PICTURES),
            lambda some: clip.image_BD([opened(p) for p in some]),
        )
    if dino is not None:
        dino_pictures = vectors(
            "DINO pictures",
            dino.fingerprint,
            pictures(_DINO_PICTURES),
            lambda some: dino.image_BD([opened(p) for p in some]),
        )
    return Vectors(contents, clip_pictures, clip_texts, dino_pictures)


def _listed(
    items: Sequence[Item],
    metrics: Collection[MetricName],
    needs: Mapping[MetricName, tuple[str, ...]],
) -> Iterable[Picture]:
    """Yield what the items hold in the fields that the metrics need; texts are listed likewise."""
    fields = dict.fromkeys(f for name, fs in needs.items() if name in metrics for f in fs)
    for item in items:
        for field in fields:
            held = getattr(item, field)
            if isinstance(held, tuple):
                yield from held
            elif held is not None:
                yield held


def _through(
    store: Store,
    start: str,
    things: Mapping[str, object],
    make: Callable[[list[object]], Tensor],
    at_once: int,
    title: str | None,
) -> dict[str, Tensor]:
    """Return the vector of every thing, made and kept in groups where the store lacks it."""
    held = store.get([start + key for key in things])
    missing = [key for key in things if start + key not in held]
    groups = [missing[i : i + at_once] for i in range(0, len(missing), at_once)]
    for group in tqdm(groups, title, disable=None if title else True, leave=False):
        made_BD = make([things[key] for key in group])
        new = {start + key: row.numpy() for key, row in zip(group, made_BD, strict=True)}
        store.put(new)
        held |= new
    return {key: torch.tensor(held[start + key]) for key in things}


def _bytes(picture: Picture) -> bytes:
    if isinstance(picture, Image.Image):
        return f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise PairsError("picture", [Fault(str(picture), found, "check the file")]) from None
