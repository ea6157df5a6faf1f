"""What decides how much memory a run takes, gathered from its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from customize.adapters import Method
from customize.families.base import Base
from customize.families.words import Word
from customize.pairs.buckets import bucket_for
from customize.pairs.decode import load_picture
from customize.training.device import ChosenPrecision, MixedPrecision, mixed_precision
from customize.training.optimizer import OptimizerName
from customize.training.plan import Plan


@dataclass(frozen=True)
class Load:
    """What decides how much memory a step takes."""

    base: Base
    method: Method
    words: tuple[Word, ...] = ()
    size: tuple[int, int] = (512, 512)
    batch: int = 1
    preserved_share: float = 0.0
    mixed: ChosenPrecision = "no"
    optimizer: OptimizerName = "adamw8bit"
    checkpointing: bool = False
    quantization: Literal["none", "int8", "nf4"] = "none"
    offload: bool = False
    device: str = "cpu"


def load_of(plan: Plan, device: str) -> Load:
    """Return what a planned run asks of `device`, "cpu" or "cuda"; its largest picture counts."""
    train = plan.recipe.train
    resolution = plan.recipe.pairs.resolution or plan.base.resolution
    sizes = {
        bucket_for(*load_picture(pair.source).size, resolution, plan.base.multiple)
        for pair in (*plan.pairs(), *plan.regularization)
    }
    return Load(
        base=plan.base,
        method=plan.method,
        words=plan.words,
        size=max(sizes, key=lambda size: size[0] * size[1]),
        batch=train.batch,
        preserved_share=plan.recipe.preservation.share,
        mixed=_mixed(train.precision, device),
        optimizer=train.optimizer,
        checkpointing=train.gradient_checkpointing,
        quantization=plan.recipe.base.quantization,
        offload=plan.recipe.base.offload,
        device=device,
    )


def _mixed(wanted: MixedPrecision, device: str) -> ChosenPrecision:
    """Return what `device` would compute in; the GPU may be another machine's."""
    return "bf16" if device == "cuda" and wanted == "auto" else mixed_precision(wanted)
