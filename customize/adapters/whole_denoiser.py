"""A whole denoiser as what learns, where a base itself is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import nn

from customize.families import Family


class WholeDenoiser:
    """Every weight of the denoiser as what learns; float32, in place."""

    def __init__(self, family: Family) -> None:
        """Let the denoiser learn."""
        self._denoiser = family.denoiser.requires_grad_(True)
        self._source = family.profile.layers.source

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Return all weights by name."""
        return {f"denoiser.{name}": p for name, p in self._denoiser.named_parameters()}

    def movement(self) -> float:
        """Return the norm of the source's input weights, which begin at zero."""
        first_NCkk = self.tensors()[f"denoiser.{self._source}"].detach()
        return float(first_NCkk[:, first_NCkk.shape[1] // 2 :].norm())

    def switched_off(self) -> AbstractContextManager[None]:
        """Refuse: there is no way back to the start, and nothing is preserved in a fit."""
        raise AssertionError("a fit preserves nothing")
