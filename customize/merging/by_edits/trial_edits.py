"""The edits that a merge is judged by: each concept's own pairs, and edits that are the base's own.

Where pairs lie is known from the recipe in an adapter's header, as long as they are still there and
in the working folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from customize.adapters.header import Header, Taught
from customize.adapters.header_facts import followed
from customize.editing.sample import Request
from customize.errors import Fault, PairsError
from customize.families.base import Base
from customize.families.words import replace_words
from customize.pairs.buckets import bucket_for, load_example
from customize.pairs.decode import load_picture
from customize.pairs.find import find_pairs
from customize.shapes import Example, Pair


@dataclass(frozen=True)
class TrialEdits:
    """The edits that show one concept; `owner` is the number of the adapter that was taught it.

    `held_out` says that the adapter never trained on them. `pair_of` numbers the pairs that they
    are views of, where several are of one.
    """

    name: str
    owner: int
    examples: tuple[Example, ...]
    held_out: bool = False
    pair_of: tuple[int, ...] = ()


def find_asked(
    headers: Sequence[Header],
    given: Mapping[str, Path],
    base: Base,
    *,
    held_out: bool,
    names: Sequence[Sequence[str]] | None = None,
    most: int = 8,
) -> list[TrialEdits]:
    """Gather at most `most` edits of every concept of every adapter.

    `names` are what a merge calls each adapter's concepts, by default what their headers do. They
    come from the folder `given` for a concept's name, else with `held_out` from the pairs that its
    recipe's previews show, else from those it trained on. Raises PairsError with every concept that
    has none, and every name in `given` that no adapter was taught.
    """
    asked, faults = list[TrialEdits](), list[Fault]()
    known = [
        (owner, names[owner][index] if names else taught.name, taught)
        for owner, header in enumerate(headers)
        for index, taught in enumerate(header.concepts)
    ]
    for odd in sorted(given.keys() - {name for _, name, _ in known}):
        cure = f"name one of {', '.join(name for _, name, _ in known)}"
        faults.append(Fault(f"--pairs {odd}", "no adapter was taught it", cure))
    for owner, name, taught in known:
        header = headers[owner]
        places = [(given[name], False)] if name in given else _places(header, taught, held_out)
        pairs, unseen = _first_usable(places, taught, only=len(header.concepts) == 1)
        if not pairs:
            tried = ", ".join(str(place) for place, _ in places) or "its recipe names none here"
            cure = f"name a folder: --pairs {name}=FOLDER"
            faults.append(Fault(f"concept {name}", f"its pairs are not here ({tried})", cure))
            continue
        examples = tuple(_example(pair, base) for pair in _spread(pairs, most))
        asked.append(TrialEdits(name, owner, examples, unseen))
    if faults:
        raise PairsError("edits to judge the merge by", faults)
    return _distinct(asked)


def own_edits(
    asked: Sequence[TrialEdits], instructions: Sequence[str], count: int, seed: int = 0
) -> list[Example]:
    """Ask for `count` of the base's own edits of the concepts' sources; targets are not known.

    The target of each is its source: what the base itself answers is what a merge must keep.
    """
    random = Random(f"own edits {seed}")
    examples = [example for one in asked for example in one.examples]
    chosen = random.sample(list(instructions), min(count, len(instructions)))
    sources = [examples[index % len(examples)].source_HWC for index in range(len(chosen))]
    return [
        Example(source_HWC=source_HWC, target_HWC=source_HWC, instruction=instruction)
        for source_HWC, instruction in zip(sources, chosen, strict=True)
    ]


def varied(asked: Sequence[TrialEdits], owner: int, most: int = 16) -> list[Example]:
    """Ask for one adapter's concepts of more sources than its own few: mirrored ones and others'.

    What layers read then tells of the instruction more than of the sources. The targets of all but
    an adapter's own pairs are not known, and are their sources.
    """
    own = [example for one in asked if one.owner == owner for example in one.examples]
    foreign = [example for one in asked if one.owner != owner for example in one.examples]
    others = [example.source_HWC[:, ::-1] for example in own] + [e.source_HWC for e in foreign]
    texts = list(dict.fromkeys(example.instruction for example in own))
    more = [
        Example(np.ascontiguousarray(source), source, texts[index % len(texts)])
        for index, source in enumerate(others)
    ]
    return [*own, *more][: max(most, len(own))]


def with_new_words(asked: TrialEdits, renamed: Mapping[str, str]) -> TrialEdits:
    """Say the concept's instructions with the words that the merged adapter knows it by."""
    examples = (
        replace(example, instruction=replace_words(example.instruction, renamed))
        for example in asked.examples
    )
    return replace(asked, examples=tuple(examples))


def requests_of(examples: Sequence[Example], seed: int = 0) -> list[Request]:
    """Ask for every example's edit; number i starts from the noise of `seed` + i."""
    return [
        Request(Image.fromarray(example.source_HWC), example.instruction, seed + index)
        for index, example in enumerate(examples)
    ]


def _places(header: Header, taught: Taught, held_out: bool) -> list[tuple[Path, bool]]:
    """List where the recipe says that a concept's pairs lie, those held out first.

    Adapters come from others: only places in the working folder are followed.
    """
    named = list[tuple[str, bool]]()
    recipe: Any = header.recipe
    unseen = recipe.get("preview", {}).get("images")
    if held_out and unseen:
        named.append((unseen, True))
    for concept in recipe.get("concepts", []):
        if concept.get("name") == taught.name and concept.get("pairs"):
            named.append((concept["pairs"], False))
    return [(place, unseen) for text, unseen in named if (place := followed(text))]


def _first_usable(
    places: Sequence[tuple[Path, bool]], taught: Taught, *, only: bool
) -> tuple[list[Pair], bool]:
    """Return the pairs of the first place that has some of this concept.

    An adapter's `only` concept owns all of a place; of several, those that its word or one of its
    instructions names. What previews show may be a folder of plain pictures, which has no pairs.
    """
    for place, unseen in places:
        if not place.exists():
            continue
        try:
            pairs = find_pairs(place).pairs
        except PairsError:
            if not unseen:
                raise
            continue
        own = [pair for pair in pairs if only or _names(pair.instruction, taught)]
        if own:
            return own, unseen
    return [], False


def _names(instruction: str, taught: Taught) -> bool:
    by_word = taught.word is not None and taught.word.lower() in instruction.lower()
    return by_word or instruction in taught.instructions


def _spread(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """Take at most `most`, evenly, so that the variety of a sorted folder stays."""
    count = min(most, len(pairs))
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _example(pair: Pair, base: Base) -> Example:
    width, height = load_picture(pair.source).size
    return load_example(pair, bucket_for(width, height, base.resolution, base.multiple))


def _distinct(asked: Sequence[TrialEdits]) -> list[TrialEdits]:
    """Number concepts of one name, so that none hides another in a table."""
    found = list[TrialEdits]()
    for one in asked:
        same = sum(other.name == one.name for other in asked[: len(found)])
        found.append(replace(one, name=f"{one.name}_{same + 1}") if same else one)
    return found
