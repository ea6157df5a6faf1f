"""What can be written for which program, and which options of it can be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from customize.errors import ExportError

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base
    from customize.families.profile import FrontEnds


LONGEST_NAME = 150
"""Bytes: a suffix comes after it, and some disks hold no more than 255."""
_NOT_IN_NAMES = frozenset('<>:"|?*,()[]{}')
_DEVICES = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]", re.I)

Target = Literal[
    "kohya",
    "diffusers",
    "comfyui",
    "a1111",
    "invokeai",
    "peft",
    "custom-diffusion",
    "full-model",
]

TARGETS: tuple[Target, ...] = get_args(Target)
ELSEWHERE: frozenset[Target] = frozenset({"comfyui", "a1111", "invokeai"})
"""What only programs other than diffusers read."""
DIFFUSERS_ALONE = (
    'only diffusers opens this adapter\'s base: ComfyUI says "could not detect model type", and '
    "A1111, Forge and InvokeAI do not know it either; what is written for them is of no use there"
)
FilePrecision = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True)
class ExportOptions:
    """How files are named and how closely they follow the adapter.

    `name` is the files' stem, None the adapter's first concept. Low-rank targets take the least
    rank that satisfies every limit given: at most `rank`, at least the share `energy` of the summed
    singular values, at most the relative `error` of a layer, at most `size_mb` (10^6 bytes) for the
    weights' file. Without a limit nothing is lost. `dtype` is raised to float32 for a tensor that
    it would change by more than its own precision. `preview` is a picture to show beside the
    weights.
    """

    name: str | None = None
    rank: int | None = None
    energy: float | None = None
    error: float | None = None
    size_mb: float | None = None
    dtype: FilePrecision = "float16"
    preview: Path | None = None

    @property
    def limited(self) -> bool:
        """Tell whether low rank may lose anything."""
        return (self.rank, self.energy, self.error, self.size_mb) != (None,) * 4


@dataclass(frozen=True)
class Written:
    """What one target got in its folder: files, the weights' first, and what people must know.

    `options` are those it was written with. `errors` has the relative error (Frobenius) of each
    layer's change against the adapter's own, rounding included.
    """

    target: Target
    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    options: ExportOptions = field(default_factory=ExportOptions)

    @property
    def largest_error(self) -> float:
        """Return the largest relative error of a layer, 0 where nothing is lost."""
        return max(self.errors.values(), default=0.0)


@dataclass(frozen=True)
class Holds:
    """What a layout can carry besides low-rank changes, and whether a model's have one rank."""

    full: bool = False
    dora: bool = False
    one_rank: bool = False


HOLDS: Mapping[Target, Holds] = {
    "kohya": Holds(one_rank=True),
    "diffusers": Holds(dora=True),
    "comfyui": Holds(full=True),
    "a1111": Holds(full=True),
    "invokeai": Holds(full=True),
    "peft": Holds(dora=True),
}


def holds_of(target: Target, names: FrontEnds) -> Holds:
    """Return what a target can hold of a family whose layers are called `names`.

    Where layers are put together, or are written in several programs' names, low rank is all.
    """
    if names.makers_names and target in ("kohya", "comfyui", "invokeai"):
        return Holds(one_rank=HOLDS[target].one_rank)
    return HOLDS[target]


def check_target(target: Target, names: FrontEnds) -> None:
    """Raise ExportError for a program that has no bases of the family."""
    if names.targets is not None and target not in names.targets:
        known = ", ".join(each for each in TARGETS if each in names.targets)
        raise ExportError(
            f"{target}: it is not written for {names.edits}; expected one of {known}; choose one"
        )


def check_request(adapter: AdapterFile, base: Base, options: ExportOptions) -> None:
    """Raise for a base of another family, a name that is a path, and numbers that cannot be."""
    from customize.adapters.at_base import other_base

    other_base(adapter.header, base)
    broken = [name for name, t in adapter.tensors.items() if not t.isfinite().all()]
    if broken:
        raise ExportError(
            f"the adapter holds numbers that are not finite in {broken[0]}; expected a whole "
            "adapter; train it again from an earlier checkpoint, or take another file"
        )
    if options.name is not None:
        _check_name(options.name)
    if options.size_mb is not None and (options.energy, options.error) != (None, None):
        raise ExportError(
            "--size-mb chooses the energy itself, and --energy or --error was given too; expected "
            "one of them; leave the other out"
        )
    for name, value, highest in (
        ("rank", options.rank, None),
        ("energy", options.energy, 1),
        ("error", options.error, 1),
        ("size-mb", options.size_mb, None),
    ):
        if value is not None and not 0 < value <= (highest or float("inf")):  # nan is none of these
            limit = f"above 0 and at most {highest}" if highest else "above 0"
            raise ExportError(f"--{name} {value:g}: expected a number {limit}; give such a one")


def _check_name(name: str) -> None:
    """Refuse what is no plain name of a file, here, on Windows and in a front end's prompt."""
    odd = next((c for c in name.replace(" ", "") if _is_odd(c)), None)
    found = (
        "it is a path"
        if "/" in name or "\\" in name
        else "a name of no letters"
        if not name.strip()
        else "names that start with a dot are hidden"
        if name.startswith(".")
        else "the words' folder is called so"
        if name == "embeddings"
        else f"it is longer than {LONGEST_NAME} bytes"
        if len(name.encode("utf-8", "replace")) > LONGEST_NAME
        else f"{odd!a} in it means something else in prompts or to Windows"
        if odd is not None
        else "it begins or ends with what Windows or a command line does not take"
        if name != name.strip(" .") or name.startswith("-")
        else f"Windows has a device of that name ({name.partition('.')[0]})"
        if is_device(name)
        else None
    )
    if found:
        raise ExportError(
            f"--name {name!a:.120}: {found}; expected the files' name alone, such as my_dog; "
            "choose letters, digits, - and _, and say where they go with --output"
        )


def _is_odd(character: str) -> bool:
    """Tell what prompts or Windows read as something else, and what nobody sees."""
    return character in _NOT_IN_NAMES or unicodedata.category(character)[0] in "CZ"


def is_device(name: str) -> bool:
    """Tell names that Windows keeps for itself, whatever comes after a dot.

    >>> is_device("AUX.v2"), is_device("auxiliary")
    (True, False)
    """
    return bool(_DEVICES.fullmatch(name.partition(".")[0].strip()))
