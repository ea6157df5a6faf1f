"""Load the parts of a base through the libraries' own loaders, frozen, with one clear message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from customize.errors import BaseModelError
from customize.families import profile_of
from customize.families.base import Base
from customize.families.loading.quiet import hush, quiet_loading
from customize.families.loading.weight_files import component_files
from customize.families.objective import Objective
from customize.files.parse import load_json

_WEIGHTLESS = ContextVar("weightless", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build models from their configs alone while inside: to measure them by fake tensors."""
    token = _WEIGHTLESS.set(True)
    try:
        yield
    finally:
        _WEIGHTLESS.reset(token)


def load_part(
    kind: Any, base: Base, part: str, device: torch.device | str, dtype: torch.dtype
) -> Any:
    """Load a model of class `kind` from the folder `part`: on `device`, frozen, in eval mode."""
    if _WEIGHTLESS.get():
        module = _from(base, part, lambda folder: _from_config(kind, folder, part, dtype))
        return module.requires_grad_(False).eval()
    # Base.variant is that of some part; others may be there in full precision alone.
    _, variant = component_files(base.folder / part, f"base {base.name!r}")
    options = {"subfolder": part, "dtype": dtype, "variant": variant}
    with quiet_loading():
        module = _from(base, part, kind.from_pretrained, use_safetensors=True, **options)
    return module.to(device).requires_grad_(False).eval()


def _from_config(kind: Any, folder: str, part: str, dtype: torch.dtype) -> Any:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if hasattr(kind, "from_config"):  # diffusers
            return kind.from_config(kind.load_config(folder, subfolder=part))
        return kind(kind.config_class.from_pretrained(folder, subfolder=part))
    finally:
        torch.set_default_dtype(usual)


def load_tokenizer(base: Base, part: str = "tokenizer") -> Any:
    """Load a tokenizer of the class that the base's family has."""
    hush()
    import transformers

    kind = getattr(transformers, profile_of(base.family).tokenizer_class)
    return _from(base, part, kind.from_pretrained, subfolder=part)


def longest_text(base: Base, part: str) -> int:
    """Return how many tokens the text encoder in the folder `part` reads."""
    hush()
    from transformers import CLIPTextConfig

    config = _from(base, part, CLIPTextConfig.from_pretrained, subfolder=part)
    return config.max_position_embeddings


def load_pipeline(
    kind: Any, base: Base, device: torch.device | str, dtype: torch.dtype | None, **options: Any
) -> Any:
    """Load diffusers' pipeline of class `kind`; `dtype` None takes the base's own on `device`."""
    options |= {"dtype": dtype or base.dtype(device), "variant": base.variant}
    with quiet_loading():
        pipeline = _from(base, "pipeline", kind.from_pretrained, use_safetensors=True, **options)
    return pipeline.to(device)


def load_objective(base: Base) -> Objective:
    """Read noise levels and target from the scheduler's config."""
    path = base.folder / "scheduler" / "scheduler_config.json"
    return _from(base, "scheduler", lambda _: Objective.from_config(load_json(path)))


def _from(base: Base, part: str, load: Callable[..., Any], **options: Any) -> Any:
    """Call one of the libraries' loaders; what it raises becomes one clear message."""
    try:
        return load(str(base.folder), **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise BaseModelError(
            f"base {base.name!r}: its {part} cannot be loaded from {base.folder} "
            f"({type(error).__name__}: {first}); expected a complete diffusers folder",
            "save or download the model again",
        ) from error
