"""Peak memory of this process or this GPU, above what importing the libraries takes."""

from __future__ import annotations

import torch


def imported() -> float:
    """Import what any training needs; return the resident bytes then."""
    import accelerate  # noqa: F401
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    return _status("VmRSS")


def peak(start: float) -> float:
    """Return the peak in bytes: of CUDA's allocator, else resident beyond `start`."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return _status("VmHWM") - start


def _status(name: str) -> float:
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith(name))
    return float(line.split()[1]) * 1024
