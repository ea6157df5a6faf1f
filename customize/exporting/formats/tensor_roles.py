"""The tensors of one changed module: what their suffixes mean.

Suffixes mean the same whatever spells the module's name, so all layouts are read through here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import Changes

Role = Literal[
    "down",
    "up",
    "mid",
    "alpha",
    "magnitude",
    "dora",
    "delta",
    "bias",
    "weight",
    "w1",
    "w1_a",
    "w1_b",
    "w2",
    "w2_a",
    "w2_b",
    "t2",
    "hada_1a",
    "hada_1b",
    "hada_2a",
    "hada_2b",
    "hada_t1",
    "hada_t2",
]

SUFFIXES: Mapping[str, Role] = {
    # kohya, ComfyUI, A1111, InvokeAI
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".dora_scale": "dora",
    ".diff": "delta",
    ".diff_b": "bias",
    ".w_norm": "delta",
    ".b_norm": "bias",
    ".set_weight": "weight",
    # peft, and diffusers since
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_B.bias": "bias",
    # diffusers before peft
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    # LyCORIS
    ".hada_w1_a": "hada_1a",
    ".hada_w1_b": "hada_1b",
    ".hada_w2_a": "hada_2a",
    ".hada_w2_b": "hada_2b",
    ".hada_t1": "hada_t1",
    ".hada_t2": "hada_t2",
    ".lokr_w1": "w1",
    ".lokr_w1_a": "w1_a",
    ".lokr_w1_b": "w1_b",
    ".lokr_w2": "w2",
    ".lokr_w2_a": "w2_a",
    ".lokr_w2_b": "w2_b",
    ".lokr_t2": "t2",
    # Custom Diffusion
    "_custom_diffusion.weight": "weight",
    "_custom_diffusion.0.weight": "weight",
    "_custom_diffusion.0.bias": "bias",
    # peft's `bias: all`
    ".base_layer.bias": "bias",
    ".bias": "bias",
}


_ENDS = ("weight", "bias")
# The names of peft's parameters after which it may write an adapter's name.
_NAMED = frozenset(
    {"lora_A", "lora_B", "lora_magnitude_vector"}
    | {suffix[1:] for suffix in SUFFIXES if suffix.startswith((".hada_", ".lokr_"))}
)


def split_key(key: str) -> tuple[str, Role] | None:
    """Split a tensor's name into its module's name and its role; None for no known suffix.

    >>> split_key("lora_unet_conv_in.lora_up.weight")
    ('lora_unet_conv_in', 'up')
    >>> split_key("unet.conv_in.lora_B.my_dog.weight")
    ('unet.conv_in', 'up')
    """
    plain = without_adapter(key)[0]
    for suffix, role in SUFFIXES.items():
        if plain.endswith(suffix):
            return plain.removesuffix(suffix), role
    return None


def without_adapter(key: str) -> tuple[str, str | None]:
    """Take the name out that peft gives an adapter inside a model, and return both.

    >>> without_adapter("conv_in.lora_A.my_dog.weight"), without_adapter("conv_in.lora_A.weight")
    (('conv_in.lora_A.weight', 'my_dog'), ('conv_in.lora_A.weight', None))
    """
    parts = key.split(".")
    match parts:
        case [*_, "weight" | "bias"] if len(parts) > 3 and parts[-3] in _NAMED:
            place = -2
        case [*_, last] if len(parts) > 2 and parts[-2] in _NAMED and last not in _ENDS:
            place = -1
        case _:
            return key, None
    name = parts.pop(place)
    return ".".join(parts), name


def gather(
    tensors: Mapping[str, Tensor],
    layer_of: Callable[[str], str | None],
    scale_of: Callable[[str, int | None], float | None] = lambda layer, rank: None,
) -> Changes:
    """Read every module of a file whose layout names them as `layer_of` says.

    `scale_of` gives alpha / rank by layer and rank (None where factors do not tell it) for layouts
    that keep it outside of the tensors. Raises AdapterFileError for a tensor that fits no known
    module or role, lacks its partner or does not fit it, and for several adapters in one file.
    """
    from customize.exporting.formats import makers_names
    from customize.exporting.formats.module_change import change_of, check_parts, rank_of

    modules: dict[str, dict[Role, Tensor]] = defaultdict(dict)
    _refuse_several(tensors, layer_of)
    for key, tensor in tensors.items():
        module, role = split_key(key) or ("", "delta")
        layer = layer_of(module)
        if layer is None:
            raise unreadable(f"the tensor {key!r} belongs to no known layer")
        if role in modules[layer]:
            raise unreadable(f"its layer {layer} is there twice, under {key!r} and another name")
        modules[layer][role] = tensor
    biases = tuple(layer for layer, parts in modules.items() if "bias" in parts)
    layers = {}
    for layer, parts in modules.items():
        parts.pop("bias", None)
        if not parts:
            continue
        try:
            check_parts(parts)
            layers[layer] = change_of(parts, scale_of(layer, rank_of(parts)))
        except KeyError as missing:
            raise unreadable(f"its layer {layer} lacks the tensor {missing.args[0]!r}") from None
        except (ValueError, RuntimeError) as error:  # torch's own where shapes do not fit
            first = str(error).splitlines()[0]
            raise unreadable(f"its layer {layer} has tensors that do not fit ({first})") from None
    return makers_names.split(Changes(layers, biases=biases))


def _refuse_several(keys: Iterable[str], layer_of: Callable[[str], str | None]) -> None:
    """Refuse a file in which several adapters of one model lie side by side."""
    names = defaultdict[str, set[str]](set)
    for key in keys:
        if name := without_adapter(key)[1]:
            layer = layer_of((split_key(key) or ("", ""))[0]) or ""
            names[layer.partition(".")[0]].add(name)
    for found in map(sorted, names.values()):
        if len(found) > 1:
            raise unreadable(
                f"it holds {len(found)} adapters ({', '.join(found[:5])})",
                "save one of them on its own",
            )


def unreadable(
    found: str, cure: str = "export it again from the program that made it, or take another file"
) -> AdapterFileError:
    """Word a refusal of tensors; whoever knows the file puts its name before."""
    return AdapterFileError(
        f"{found}; expected whole layers of Stable Diffusion 1 or XL or of FLUX.2 klein; {cure}"
    )
