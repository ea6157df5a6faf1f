"""One edit to begin with: an adapter's instruction, its base's settings, and what can open it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from customize.adapters.deltas import layers, words
from customize.adapters.header_facts import shareable
from customize.families import profile_of
from customize.families.sampling_defaults import Sampling, sampling_of

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base
    from customize.families.profile import Profile, UsualBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class FirstEdit:
    """What guides fill in.

    `instruction` holds words as taught, `words` are all of the adapter's. `base` is what the base
    is called, `name` the stem of the adapter's files; `usual` tells how other programs know the
    base, None where nothing is known. `side` is that of the base's pictures, in pixels. An adapter
    of words alone `changes_layers` not.
    """

    profile: Profile
    instruction: str
    words: tuple[str, ...]
    sampling: Sampling
    side: int
    base: str
    name: str
    changes_layers: bool = True
    scheduler: str = ""
    usual: UsualBase | None = None

    @property
    def diffusers_alone(self) -> bool:
        """Tell a base that no other program opens."""
        return self.usual is not None and self.usual.diffusers_alone

    @property
    def opens_by_name(self) -> bool:
        """Tell a base that diffusers finds by its name, on every machine."""
        return self.base == "embedded" or _HUB_ID.fullmatch(self.base) is not None

    @property
    def checkpoint(self) -> str:
        """Name the base's single file: the usual one, else after the base."""
        if self.usual is not None and self.usual.checkpoint and self.usual.name == self.base:
            return self.usual.checkpoint
        stem = self.base.rstrip("/").rpartition("/")[2].removesuffix(".safetensors")
        return f"{stem}.safetensors"


def first_edit(adapter: AdapterFile, base: Base, name: str) -> FirstEdit:
    """Choose what the adapter was taught first; raises BaseModelError for the base's own files."""
    taught = tuple(words(adapter))
    instructions = [text for concept in adapter.header.concepts for text in concept.instructions]
    plain = f"add {taught[0]}" if taught else "make it night"
    return FirstEdit(
        profile=profile_of(base.family),
        instruction=instructions[0] if instructions else plain,
        words=taught,
        sampling=sampling_of(base),
        side=base.resolution,
        base=shareable(base.name),
        name=name,
        changes_layers=next(iter(layers(adapter)), None) is not None,
        scheduler=_scheduler(base),
        usual=usual_base_of(base),
    )


def usual_base_of(base: Base) -> UsualBase | None:
    """Find which usual base this one is like, by the width of the text that its layers read."""
    from customize.families.loading.layer_weights import BaseWeights

    profile, weights = profile_of(base.family), BaseWeights(base)
    pattern = re.compile(rf"denoiser\.(?:{profile.layers.text_kv})")
    reader = next((layer for layer in weights.layers() if pattern.fullmatch(layer)), None)
    width = weights.shape(reader)[1] if reader else None
    return next((usual for usual in profile.usual_bases if usual.text_width == width), None)


def _scheduler(base: Base) -> str:
    """Name the class of the base's own noise levels, "" where its files do not say."""
    from customize.errors import BaseModelError
    from customize.families.identify import read_json

    place = base.folder / "scheduler" / "scheduler_config.json"
    try:
        return str(read_json(place, base.name).get("_class_name", ""))
    except BaseModelError:
        return ""
