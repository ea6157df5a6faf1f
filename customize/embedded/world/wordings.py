"""How instructions are worded: several ways for each edit."""

from __future__ import annotations

import numpy as np

from customize.embedded.world.colors import PALETTE
from customize.embedded.world.held_out import is_held_out

KEEP = ("keep it as it is", "change nothing", "leave the picture alone", "do nothing")

WORDINGS: dict[str, tuple[str, ...]] = {
    "background": ("make the background {0}", "change the background to {0}",
                   "paint the background {0}", "turn the background {0}"),
    "texture": ("make the background {0}", "give it a {0} background",
                "change the background to {0}"),
    "night": ("make it night", "turn day into night", "show it at night"),
    "day": ("make it day", "turn night into day", "show it by day"),
    "recolor": ("make the {0} {1}", "turn the {0} {1}", "paint the {0} {1}",
                "change the {0} to {1}", "color the {0} {1}"),
    "add": ("add {0} on the {1}", "put {0} on the {1}", "place {0} on the {1}"),
    "remove": ("remove the {0}", "take away the {0}", "delete the {0}"),
    "replace": ("replace the {0} with a {1}", "turn the {0} into a {1}",
                "swap the {0} for a {1}", "change the {0} into a {1}"),
    "black and white": ("make it black and white", "turn it black and white",
                        "take away the colors"),
    "sepia": ("make it sepia", "turn it into a sepia picture", "make it look old"),
    "negative": ("make it a negative", "invert the colors", "turn it into a negative"),
    "poster": ("make it a poster", "turn it into a poster", "use only a few colors"),
    "bright": ("make it brighter", "brighten it", "add more light"),
    "dark": ("make it darker", "darken it", "use less light"),
    "warm": ("make it warmer", "use warm light", "give it warm light"),
    "cold": ("make it colder", "use cold light", "give it cold light"),
    "blurred": ("blur it", "make it out of focus", "make it blurry"),
    "tint": ("give it a {0} tint", "tint it {0}", "add a {0} tint"),
    "duotone": ("make it a {0} and {1} duotone", "turn it into {0} and {1} duotone",
                "use only {0} and {1}"),
    "frame": ("add a {0} frame", "put a {0} frame around it", "give it a {0} frame"),
    "bars": ("add {0} bars", "put {0} bars above and below", "give it {0} bars"),
}  # fmt: skip


def random_wording(rng: np.random.Generator, edit: str) -> str:
    """Choose one of the templates for an edit; its words go in by `str.format`."""
    options = WORDINGS[edit]
    return options[int(rng.integers(len(options)))]


def is_unseen(wording: str, *words: str | None) -> bool:
    """Tell whether a template with these words' colours is kept for testing."""
    colors = [word for word in words if word in PALETTE]
    return bool(colors) and is_held_out(wording, *colors)


def all_words() -> list[str]:
    """List every instruction template and colour, for the tokenizer's merges."""
    return [*KEEP, *(wording for options in WORDINGS.values() for wording in options), *PALETTE]
