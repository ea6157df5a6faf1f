"""Where training computes and in which precision, and what is said when its memory runs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from customize.errors import TrainingError
from customize.families.base import cpu_has_bfloat16, gpu_has_bfloat16
from customize.families.loading.quiet import hush

ChosenPrecision = Literal["no", "bf16", "fp16"]
MixedPrecision = Literal["auto", "no", "bf16", "fp16"]


def open_accelerator(precision: MixedPrecision) -> Any:
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


def mixed_precision(wanted: MixedPrecision) -> ChosenPrecision:
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
    return "bf16" if cpu_has_bfloat16() else "no"


def use_cpu_attention(denoiser: Any, device: torch.device) -> None:
    """Use attention that is made for training on a CPU; elsewhere torch's own (SDPA) is best.

    Layers that rotate what they compare, or compute more at once, keep their own.
    """
    if device.type != "cpu":
        return
    from diffusers.models.attention_processor import Attention

    from customize.training.cpu_attention import CpuAttention

    for module in denoiser.modules():
        if isinstance(module, Attention):
            module.set_processor(CpuAttention())  # type: ignore[arg-type]


def use_channels_last(denoiser: nn.Module, device: torch.device) -> None:
    """Lay frozen convolutions out channels last on a GPU, as its matrix units read them.

    Those that learn stay: 8-bit optimizers go through weight and gradient as they lie in memory.
    """
    if device.type != "cuda":
        return
    for module in denoiser.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.requires_grad:
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@contextmanager
def memory_explained(wanted: str, cures: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Turn running out of memory into a TrainingError: what it was wanted for, and the `cures`.

    They are settings that need less, asked for when it has come to that.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        found = "; or ".join(cures())
        cure = f"set {found}" if found else "choose a smaller base or a larger device"
        raise TrainingError(
            f"out of memory ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            f"; expected room for {wanted}; {cure}"
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)
