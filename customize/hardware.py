"""Where training computes and in which precision; what to change when memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from customize.errors import TrainingError
from customize.families.bases import gpu_has_bfloat16
from customize.families.quiet import hush
from customize.recipe import Recipe

Mixed = Literal["no", "bf16", "fp16"]
Precision = Literal["auto", "no", "bf16", "fp16"]


def open_accelerator(precision: Precision) -> Any:
    """Find the device and open accelerate on it, launched by `accelerate launch` or not.

    It is told of no accumulation: `train_steps` divides by the recipe's, and once is enough.

    Raises TrainingError for fp16 without a GPU.
    """
    hush()
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    # A second run in one process may ask for another precision than the first.
    AcceleratorState._reset_state(reset_partial_state=False)
    mixed = mixed_precision(precision)
    if mixed == "fp16" and not torch.cuda.is_available():
        raise TrainingError(
            "train.precision: fp16 needs a CUDA device and there is none; expected auto, no or "
            "bf16 here; set it to auto"
        )
    # Frozen buffers never differ, and sending them would tie together processes that preserve
    # different numbers of samples, and so call the denoiser differently often.
    wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        mixed_precision=mixed,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[wrapping],
    )


def mixed_precision(wanted: Precision) -> Mixed:
    """Choose the computation's precision; `auto` follows `accelerate launch`, else the hardware.

    On CPUs with bfloat16 instructions a step of the embedded base took 118 ms for 154 ms in float32
    (two cores, K/V, batch 8); without them bfloat16 is emulated, and slow.
    """
    if wanted != "auto":
        return wanted
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if launched == "bf16" or launched == "fp16":
        return launched
    if torch.cuda.is_available():
        return "bf16" if gpu_has_bfloat16() else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    return "bf16" if _cpu_has_bfloat16() else "no"


def suit_attention(denoiser: Any, device: torch.device) -> None:
    """Use attention that is made for training on a CPU; elsewhere torch's own (SDPA) is best."""
    if device.type == "cpu":
        from customize.cpu_attention import CpuAttention

        denoiser.set_attn_processor(CpuAttention())


def suit_convolutions(denoiser: nn.Module, device: torch.device) -> None:
    """Lay frozen convolutions out channels last on a GPU, as its matrix units read them.

    Those that learn stay: 8-bit optimizers go through weight and gradient as they lie in memory.
    """
    if device.type != "cuda":
        return
    for module in denoiser.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.requires_grad:
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@contextmanager
def memory_explained(recipe: Recipe, resolution: int | None = None) -> Iterator[None]:
    """Turn running out of memory into a TrainingError with the settings that need less."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        cures = smaller_settings(recipe, resolution)
        cure = f"set {'; or '.join(cures)}" if cures else "choose a smaller base or a larger device"
        raise TrainingError(
            f"out of memory ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            f"; expected room for train.batch: {recipe.train.batch}; {cure}"
        ) from error


def smaller_settings(recipe: Recipe, resolution: int | None = None) -> list[str]:
    """List the recipe's settings that would need less memory, the least costly first."""
    train, found = recipe.train, list[str]()
    if not train.gradient_checkpointing:
        found.append("train.gradient_checkpointing: true (slower by a third)")
    if train.batch > 1:
        half = train.batch // 2
        twice = train.accumulation * -(-train.batch // half)
        found.append(f"train.batch: {half} with train.accumulation: {twice} (the same learning)")
    if train.optimizer in ("adamw", "prodigy"):
        found.append("train.optimizer: adamw8bit (a quarter of the optimizer's memory)")
    side = recipe.pairs.resolution or resolution
    if side is not None and side >= 128:
        found.append(f"pairs.resolution: {side * 3 // 4 // 64 * 64 or 64} (smaller pictures)")
    return found


def _is_out_of_memory(error: BaseException) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)


def _cpu_has_bfloat16() -> bool:
    """Ask torch, whose questions are private, whether this CPU multiplies bfloat16 itself."""
    asked = [
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(ask() for ask in asked if ask is not None)
