"""Find the adapter that a folder is: its own files, never others that lie further below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from customize.adapters.open_safetensors import refused
from customize.exporting.formats import custom_diffusion, diffusers_lora, peft_folder

_ONE = (peft_folder.WEIGHTS, diffusers_lora.FILE, custom_diffusion.FILE)
_MODELS = tuple(prefix.removesuffix(".") for prefix in diffusers_lora.PREFIXES.values())
_PICKLES = ("adapter_model.bin", "pytorch_lora_weights.bin", "pytorch_custom_diffusion_weights.bin")
_ENOUGH = 1000


def files_of(folder: Path) -> Sequence[Path]:
    """Return the weights' files: one, or one for each model in a folder of its own.

    Without any it is the only folder inside that has some, as peft saves an adapter with a name.
    Raises AdapterFileError for a folder of none or of several adapters.
    """
    own = _own(folder)
    if own:
        return own
    below = [place for place in sorted(folder.iterdir())[:_ENOUGH] if place.is_dir()]
    found = {place: files for place in below if (files := _own(place))}
    match list(found.values()):
        case [files]:
            return files
        case []:
            raise refused(folder, _nothing(folder), "name the file, or the folder it lies in")
        case _:
            names = ", ".join(place.name for place in list(found)[:5])
            several = f"a folder of {len(found)} adapters ({names})"
            raise refused(folder, several, "name one of them")


def _own(folder: Path) -> list[Path]:
    whole = [folder / name for name in _ONE if (folder / name).exists()]
    parts = [folder / model / peft_folder.WEIGHTS for model in _MODELS]
    parts = [path for path in parts if path.exists()]
    if len(whole) + bool(parts) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in [*whole, *parts])
        raise refused(folder, f"a folder of several adapters ({names})", "name one of the files")
    return whole or parts


def _nothing(folder: Path) -> str:
    if any((folder / name).exists() for name in _PICKLES):
        return "a folder whose weights are pickles (.bin), which can run any code"
    return f"a folder without {', '.join(_ONE)}"
