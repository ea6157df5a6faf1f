"""Name the layout of any adapter file, and what a file is that holds no adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from customize.exporting.formats import comfyui, diffusers_lora, kohya, peft_folder
from customize.exporting.formats.embeddings import is_bundled, is_embedding
from customize.exporting.formats.other_files import OTHER_FILES
from customize.exporting.formats.tensor_roles import Role, split_key
from customize.exporting.formats.unreadable import known_kind

if TYPE_CHECKING:
    from customize.adapters.open_safetensors import Opened

Layout = Literal[
    "customize", "kohya", "diffusers", "peft", "comfyui", "custom-diffusion", "embedding"
]

# In this order: what one reads whole is not asked of the next.
_LAYOUTS: tuple[tuple[Layout, Callable[[str], str | None]], ...] = (
    ("kohya", kohya.layer_of),
    ("diffusers", diffusers_lora.layer_of),
    ("peft", peft_folder.layer_of),
    ("comfyui", comfyui.layer_of),
)
_PROCESSOR = re.compile(r".+\.attn[12]\.processor")


def recognize(opened: Opened) -> Layout | None:
    """Name the layout that reads every tensor of a file, None where there is none."""
    names = list(opened.shapes)
    if "customize" in opened.metadata:
        return "customize"
    if _is_custom_diffusion(names):
        return "custom-diffusion"
    if is_embedding(opened.shapes) and not known_kind(names):
        return "embedding"
    split = [split_key(name) for name in names if not is_bundled(name)]
    modules = {found[0] for found in split if found}
    if not modules or None in split:
        return None
    for layout, layer_of in _LAYOUTS:
        if all(layer_of(module) for module in modules):
            return layout
    return None


def foreign(opened: Opened) -> tuple[str, str]:
    """Say what a file is that no layout reads, and what to do."""
    names, other = list(opened.shapes), "name the file of an adapter"
    if not names:
        return "a safetensors file without tensors", other
    if known := known_kind(names):
        return known
    for pattern, kind in OTHER_FILES:
        if any(re.match(pattern, name) for name in names):
            return kind, other
    unread = _unread(names)
    count = f"{len(unread)} of {len(names)}" if len(unread) < len(names) else f"{len(names)}"
    return f"a file of {count} tensors of no known layout, such as {unread[0]!r}", other


def _unread(names: Sequence[str]) -> Sequence[str]:
    """Return the tensors that are left over by the layout that knows most of them."""

    split = [(name, split_key(name)) for name in names if not is_bundled(name)]

    def left(layer_of: Callable[[str], str | None]) -> list[str]:
        return [name for name, found in split if found is None or not layer_of(found[0])]

    return min((left(layer_of) for _, layer_of in _LAYOUTS), key=len) or names


def kind_of(names: Iterable[str]) -> str:
    """Say how a layout's file describes its changes, by the roles of its tensors."""
    roles = {found[1] for found in map(split_key, names) if found}
    kinds = [kind for kind, role in _KINDS.items() if role & roles]
    return ", ".join(kinds) or "weights"


_KINDS: Mapping[str, set[Role]] = {
    "LoRA": {"down"},
    "LoHa": {"hada_1a"},
    "LoKr": {"w1", "w1_a"},
    "full changes": {"delta"},
    "whole weights": {"weight"},
    "DoRA": {"magnitude", "dora"},
    "biases": {"bias"},
}


def _is_custom_diffusion(names: Iterable[str]) -> bool:
    """Tell the file whose keys end so; those of self-attention are bare processors."""
    rest = [name for name in names if not _PROCESSOR.fullmatch(name)]
    return bool(rest) and all("_custom_diffusion." in name for name in rest)
