"""Signs that source and target were swapped, so that a model would learn to undo the edit.

No sign is proof; each warning says what was seen and sends the user to the contact sheet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from customize.errors import Fault
from customize.pairs.lint.pictures import Glance, SeenPair

BEFORE_NAMES = frozenset(["before", "source", "src", "original", "orig", "input", "start"])
AFTER_NAMES = frozenset(["after", "target", "edited", "edit", "output", "out", "result", "end"])

CLEAR_LEVELS = 15.0
"""A change of mean brightness or colourfulness, of 255 levels, too large to be chance."""

DIRECTIONS = (
    ("brightness", 1, r"brighter|brighten|lighter|lighten|daytime|day ?light|sunny|midday"),
    ("brightness", -1, r"darker|darken|dim|night|nighttime|midnight"),
    ("colourfulness", -1, r"black and white|gr[ae]yscale|monochrome|desaturated?|faded"),
    ("colourfulness", 1, r"colou?rful|vivid|saturated|colou?ri[sz]ed?"),
)
"""Which way a measure should go when the instruction has one of these words."""

REMOVES = re.compile(r"\b(remove|delete|erase|without|take away|get rid of)\b")
CURE = "look at the contact sheet; if so, swap source and target"


def reversed_faults(seen: Sequence[SeenPair]) -> Iterator[Fault]:
    """Yield one warning for each pair that shows a sign of being the wrong way round."""
    for item in seen:
        signs = (_names(item), _captions(item), _measures(item), _camera(item))
        if found := next((sign for sign in signs if sign), None):
            yield Fault(item.pair.place, f"likely reversed: {found}", CURE, "warning")


def _names(item: SeenPair) -> str | None:
    """Compare the words of both paths that differ, such as `before/1.png` and `after/1.png`."""
    source, target = (
        set(re.split(r"[^a-z]+", "/".join(path.parts[-2:]).lower()))
        for path in (item.pair.source, item.pair.target)
    )
    says_after, says_before = source - target & source, target - source
    if says_after & AFTER_NAMES and says_before & BEFORE_NAMES:
        return f"the source is called {item.pair.source.name}, the target {item.pair.target.name}"
    return None


def _captions(item: SeenPair) -> str | None:
    """See in which caption the instruction's words are: an added thing belongs in the target's."""
    pair = item.pair
    if pair.source_caption is None or pair.target_caption is None:
        return None
    said, before, after = (
        set(re.findall(r"<[^>]+>|\w{3,}", text.lower()))
        for text in (pair.instruction, pair.source_caption, pair.target_caption)
    )
    in_source, in_target = said & (before - after), said & (after - before)
    removes = bool(REMOVES.search(pair.instruction.lower()))
    lost, won = (in_target, in_source) if removes else (in_source, in_target)
    if lost and not won:
        where = "target" if removes else "source"
        return f"{', '.join(sorted(lost))} of the instruction is in the {where}'s caption alone"
    return None


def _measures(item: SeenPair) -> str | None:
    """Hold the pictures against an instruction that says which way light or colour goes."""
    said = item.pair.instruction.lower()
    ways = [(m, sign) for m, sign, words in DIRECTIONS if re.search(rf"\b({words})\b", said)]
    if len(ways) != 1:  # "from night to day" says both, so it decides nothing
        return None
    measure, sign = ways[0]
    before, after = _measure(item.source, measure), _measure(item.target, measure)
    if (after - before) * sign < -CLEAR_LEVELS:
        return f"{measure} goes from {before:.0f} to {after:.0f}, against the instruction"
    return None


def _measure(look: Glance, measure: str) -> float:
    return look.brightness if measure == "brightness" else look.colourfulness


def _camera(item: SeenPair) -> str | None:
    """A camera's mark on the target alone: photographs are sources far more often than results."""
    if item.target.camera and not item.source.camera:
        return "the target carries a camera's EXIF data, the source none"
    return None
