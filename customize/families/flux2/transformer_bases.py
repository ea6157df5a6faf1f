"""Which transformer bases can be edited with here, by their configs alone; others are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from customize.errors import BaseModelError
from customize.families.identify import BaseKind, Identified, read_json, wrong_kind
from customize.families.sampling_defaults import Sampling

BASE = "black-forest-labs/FLUX.2-klein-base-4B"
LEAST_SIDE = 64
"""Pixels; diffusers' pipeline takes no smaller picture."""

_OTHERS = {
    "FluxKontextPipeline": "FLUX.1 Kontext",
    "FluxKontextInpaintPipeline": "FLUX.1 Kontext",
    "QwenImageEditPipeline": "Qwen-Image-Edit",
    "QwenImageEditPlusPipeline": "Qwen-Image-Edit",
    "Flux2Pipeline": "FLUX.2 dev, whose text encoder is a Mistral",
}
_WIDTH_4B = 24 * 128


def identify(index: dict[str, Any], folder: Path, name: str, kind: BaseKind) -> Identified:
    """Tell FLUX.2 klein from what is not supported; raises BaseModelError for all else."""
    told = str(index.get("_class_name"))
    if kind == "text_to_image":
        raise wrong_kind(name, kind, f"a transformer model ({told})")
    if told in _OTHERS:
        raise _unsupported(name, _OTHERS[told])
    kinds = [(index.get(part) or [None, None])[1] for part in ("transformer", "text_encoder")]
    match kinds:
        case "Flux2Transformer2DModel", "Qwen3ForCausalLM":
            pass
        case "Flux2Transformer2DModel", None:
            raise BaseModelError(
                f"base {name!r}: its model_index.json names no text encoder; expected FLUX.2 klein "
                "with the Qwen3 that reads its instructions",
                "save or download the whole model",
            )
        case _:
            raise _unsupported(name, f"a transformer model ({told})")
    transformer = read_json(folder / "transformer" / "config.json", name)
    vae = read_json(folder / "vae" / "config.json", name)
    patch = 2 ** (len(vae["block_out_channels"]) - 1) * 2
    distilled = bool(index.get("is_distilled", False))
    return Identified(
        family="flux2_klein",
        resolution=int(vae["sample_size"]),
        multiple=patch,
        edit_multiple=patch,
        least_side=max(patch, LEAST_SIDE),
        untrainable=_DISTILLED if distilled else None,
        sampling=Sampling(4, 1.0, 1.0) if distilled else None,
        notice=_licence(transformer),
    )


_DISTILLED = (
    "this is the distilled FLUX.2 klein, made to answer in 4 steps without guidance: what is "
    "trained on it gives grey pictures; expected the undistilled base",
    f"train on '{BASE}' and edit with the adapter on this one",
)


def _licence(transformer: dict[str, Any]) -> str | None:
    """Say what larger models allow: only the 4B ones are Apache-2.0."""
    width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    if width <= _WIDTH_4B:
        return None
    return (
        "this is FLUX.2 klein 9B: its licence (FLUX Non-Commercial) allows no commercial use of it "
        "or of adapters made with it; the 4B models are Apache-2.0"
    )


def _unsupported(name: str, found: str) -> BaseModelError:
    return BaseModelError(
        f"base {name!r}: this is {found}, which is not supported; of transformer models, FLUX.2 "
        "klein is",
        f"name '{BASE}', or an InstructPix2Pix base such as 'timbrooks/instruct-pix2pix' or "
        "'embedded'",
    )
