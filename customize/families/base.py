"""From what the recipe calls its base to a checked folder of weights on this machine.

A base is `embedded`, a diffusers folder, a hub id, or a single-file checkpoint. Only safetensors
are read: a pickle can run code when it is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from customize.errors import BaseModelError
from customize.families import profile_of
from customize.families.identify import BaseKind, FamilyName, family_of
from customize.families.known_places import remember
from customize.families.loading.weight_files import component_files, fingerprint
from customize.families.sampling_defaults import Sampling
from customize.files.text import found_at

if TYPE_CHECKING:
    import torch

WeightPrecision = Literal["auto", "float32", "bfloat16", "float16"]

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded" / "weights"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """A base found, identified and checked, not yet loaded.

    `name` is what the user typed; `variant` the file variant to load (`fp16` where nothing else is
    there). In pixels, `resolution` is its native picture side, `multiple` what sides divide by
    where it trains, `edit_multiple` where it edits, `least_side` how short they may be there.
    `untrainable` says why no adapter can be trained on it, and the cure; `sampling` is its own way
    where that is not its family's; `notice` is to be read before it is used.
    """

    name: str
    folder: Path
    family: FamilyName
    fingerprint: str
    resolution: int
    multiple: int
    edit_multiple: int
    precision: WeightPrecision = "auto"
    variant: str | None = None
    least_side: int = 1
    untrainable: tuple[str, str] | None = None
    sampling: Sampling | None = None
    notice: str | None = None

    def dtype(self, device: torch.device | str) -> torch.dtype:
        """Return the precision of weights on `device`; `auto` is float32 except on CUDA."""
        import torch

        if self.precision != "auto":
            return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
                self.precision
            ]
        if torch.device(device).type != "cuda":
            return torch.float32
        return torch.bfloat16 if gpu_has_bfloat16() else torch.float16


def cpu_has_bfloat16() -> bool:
    """Ask torch, whose questions are private, whether this CPU multiplies bfloat16 itself."""
    import torch

    asked = [
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(ask() for ask in asked if ask is not None)


def gpu_has_bfloat16() -> bool:
    """Tell whether the GPU multiplies bfloat16 itself; NVIDIA's before Ampere only emulate it."""
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def resolve_base(
    name: str = "embedded", revision: str | None = None, precision: WeightPrecision = "auto"
) -> Base:
    """Find the base called `name`, fetch or convert it where needed, and identify its family.

    Where a folder or file lies is remembered for adapters made for it. Raises BaseModelError for
    what is missing, unreadable, unsafe or of a kind that cannot be trained.
    """
    base = _resolve(name, revision, precision, "editing")
    if (place := Path(name).expanduser()).exists() and name != "embedded":
        remember(base.fingerprint, place)
    return base


def resolve_plain(name: str, revision: str | None = None) -> Base:
    """Find the text-to-image model called `name`, to be made an editing base; else the same."""
    return _resolve(name, revision, "auto", "text_to_image")


def _resolve(name: str, revision: str | None, precision: WeightPrecision, kind: BaseKind) -> Base:
    folder = _locate(name, revision, kind)
    found = family_of(folder, name, kind)
    files, variants = [], set[str | None]()
    for component in profile_of(found.family).components:
        own, variant = component_files(folder / component, f"base {name!r}")
        files += own
        variants.add(variant)
    return Base(
        name=name,
        folder=folder,
        fingerprint=fingerprint(files, folder),
        precision=precision,
        variant=next((v for v in variants if v), None),
        **vars(found),
    )


def _locate(name: str, revision: str | None, kind: BaseKind) -> Path:
    if name == "embedded":
        if not (EMBEDDED / "model_index.json").is_file():
            raise BaseModelError(
                f"base 'embedded': its weights are not at {EMBEDDED}; expected them to come with "
                "the package",
                "install the package again or run `customize fit-base recipes/base/embedded.yaml`",
            )
        return EMBEDDED
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        from customize.families.single_file.convert import convert

        return convert(path, kind)
    if _HUB_ID.fullmatch(name) and path.suffix != ".safetensors":
        from customize.families.loading.download import download

        return download(name, revision, check=lambda folder: family_of(folder, name, kind))
    raise BaseModelError(
        f"base {name!r}: there is {found_at(path)}, and it is no hub id; expected 'embedded', "
        "a diffusers folder, a .safetensors checkpoint or a hub id such as "
        "'timbrooks/instruct-pix2pix'",
        "check the spelling",
    )
