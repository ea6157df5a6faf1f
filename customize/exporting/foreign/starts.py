"""Take a start off factors that began as a part of the base's own weights.

Such training takes the start off the base: what it drew with is W - s B0 A0 + s B A. So the change
from the base itself is s B A - s B0 A0, exactly low-rank, and the start follows from W alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import torch
from torch import Tensor

from customize.errors import AdapterFileError
from customize.exporting.changes import Changes, Decomposed, LowRankChange, Start, Weights


def take_off_starts(changes: Changes, weights: Weights) -> Changes:
    """Return the changes from the base as it is, none of which has a start any more.

    Raises AdapterFileError for a layer that cannot have started so.
    """
    layers = dict(changes.layers)
    for layer, start in changes.starts.items():
        match layers[layer]:
            case LowRankChange() as pair:
                layers[layer] = _from(pair, weights[layer], start, layer)
            case Decomposed(LowRankChange() as pair) as dora:
                layers[layer] = replace(dora, change=_from(pair, weights[layer], start, layer))
            case _:
                raise _no_start(layer, start)
    return replace(changes, layers=layers, starts={})


def _from(pair: LowRankChange, weight: Tensor, start: Start, layer: str) -> LowRankChange:
    """Stack the learned product on the negative of the start's, (O, r) (r, I) of the weight."""
    if pair.down.ndim != 2 or weight.flatten(1).shape[1] != pair.down.shape[1]:
        raise _no_start(layer, start)
    started = _started(weight.flatten(1), len(pair.down), start)
    return LowRankChange(
        torch.cat([pair.down, started.down]), torch.cat([pair.up, -started.up], dim=1)
    )


def _started(weight_OI: Tensor, rank: int, start: Start) -> LowRankChange:
    """Return what peft took off a weight when training began.

    PiSSA's is the weight's best approximation of that rank, whatever the scale (arXiv 2404.02948,
    equations 2 to 4); OLoRA's the scale times the first columns and rows of its QR decomposition
    (arXiv 2406.01775, algorithm 1). In float32, as peft computes both: where singular values are
    close, rounding decides which are among the first.
    """
    match start.kind:
        case "pissa":
            left_OR, values_R, right_RI = torch.linalg.svd(weight_OI.float(), full_matrices=False)
            return LowRankChange(right_RI[:rank], left_OR[:, :rank] * values_R[:rank])
        case "olora":
            q_OR, r_RI = torch.linalg.qr(weight_OI.float())
            return LowRankChange(r_RI[:rank], start.scale * q_OR[:, :rank])
        case _:
            assert_never(start.kind)


def _no_start(layer: str, start: Start) -> AdapterFileError:
    return AdapterFileError(
        f"its configuration says init_lora_weights: {start.kind}, and its layer {layer} has no "
        "factors of a matrix; expected LoRA of linear layers; save it again as plain LoRA with "
        "peft's save_pretrained(folder, path_initial_model_for_weight_conversion=START)"
    )
