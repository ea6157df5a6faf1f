"""An adapter and a base: what to open for it, whether it fits, and whether it was made for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from customize.adapters.check_contents import LAYER, WORD
from customize.adapters.header_facts import followed
from customize.errors import AdapterFileError
from customize.families.known_places import place_of

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.adapters.header import Header
    from customize.families.base import Base

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def base_for(header: Header) -> str:
    """Name the base to open for an adapter as `resolve_base` takes it.

    `embedded`, a hub id, or a place in the working folder is opened by its name. Others are folders
    of the machine that the adapter was made on: one whose weights were opened here before is found
    by their fingerprint. Raises AdapterFileError where there is none.
    """
    name, place = header.base_name, followed(header.base_name)
    if name == "embedded" or _HUB_ID.fullmatch(name) or (place and place.exists()):
        return name
    if known := place_of(header.base_fingerprint):
        return known
    raise AdapterFileError(
        f"the adapter was made for a base called {name!r} (weights "
        f"{header.base_fingerprint[:12]}), which is a folder or file somewhere; expected to know "
        "where it is here; name it with --base"
    )


def other_base(header: Header, base: Base) -> str | None:
    """Say how `base` is not the one the adapter was made for, None when it is.

    Raises AdapterFileError for a base of another family, which can never serve.
    """
    if header.family != base.family:
        raise AdapterFileError(
            f"the adapter was made for a base of the family {header.family!r} "
            f"({header.base_name}), and {base.name!r} is {base.family!r}; expected one family; "
            "choose the other base or another adapter"
        )
    if header.base_fingerprint == base.fingerprint:
        return None
    return (
        f"the adapter was made for {header.base_name!r} with weights "
        f"{header.base_fingerprint[:12]}, and {base.name!r} has weights {base.fingerprint[:12]}: "
        "it may do less, or something else"
    )


def check_fit(adapter: AdapterFile, base: Base) -> str | None:
    """Hold every tensor against the base's layers, by shapes alone; return what `other_base` does.

    Raises AdapterFileError for another family, layers and encoders that the base lacks, and shapes
    that do not fit.
    """
    difference = other_base(adapter.header, base)
    shapes = {name: tuple(adapter.tensors[name].shape) for name in adapter.tensors}
    if found := next(_faults(shapes, base), None):
        raise AdapterFileError(
            f"the adapter does not fit {base.name!r}: {found}; expected the base it was made for "
            f"({adapter.header.base_name!r}); name that base with --base"
        )
    return difference


def _faults(shapes: Mapping[str, tuple[int, ...]], base: Base) -> Iterator[str]:
    from customize.families import profile_of
    from customize.families.loading.layer_weights import BaseWeights

    weights, profile = BaseWeights(base), profile_of(base.family)
    for name, shape in shapes.items():
        if word := WORD.fullmatch(name):
            table = f"{word[1]}.{profile.token_table}"
            if table not in weights:
                yield f"it teaches words to {word[1]}, which this base does not have"
            elif shape[1] != (width := weights.shape(table)[1]):
                yield f"the word {word[2]} is {shape[1]} wide, and the base's words {width}"
            continue
        layer = LAYER.fullmatch(name)
        assert layer is not None, name
        if layer[1] not in weights:
            yield f"it changes the layer {layer[1]}, which this base does not have"
        elif found := _misfit(layer[2], shape, weights.shape(layer[1])):
            yield f"its change of {layer[1]} has {found}"
    taught = {word[1] for name in shapes if (word := WORD.fullmatch(name))}
    for encoder in profile.text_encoders:
        if taught and encoder not in taught:
            yield f"its words have no rows for {encoder}"


def _misfit(kind: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> str | None:
    """Say how a tensor does not fit a weight (O, I, ...)."""
    match kind:
        case "delta":
            fits = shape == weight
        case "lora_A":
            fits = shape[1:] == weight[1:]
        case "lora_B":
            fits = shape[0] == weight[0]
        case _:
            fits = True  # magnitudes are as many as lora_B has outputs
    return None if fits else f"the shape {list(shape)}, and the base's weight {list(weight)}"
