"""Peak memory of this process or this GPU, above what importing the libraries takes."""

from __future__ import annotations

import gc

import torch


def imported() -> float:
    """Import what any training needs; return the bytes held then: resident, or on the GPU.

    There the peak begins anew, so that one process can measure several times.
    """
    import accelerate  # noqa: F401
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch.utils.tensorboard
    from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    if not torch.cuda.is_available():
        return _status("VmRSS")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.memory_allocated())


def peak(start: float) -> float:
    """Return the peak in bytes beyond `start`: of CUDA's allocator, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() - start
    return _status("VmHWM") - start


def _status(name: str) -> float:
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith(name))
    return float(line.split()[1]) * 1024
