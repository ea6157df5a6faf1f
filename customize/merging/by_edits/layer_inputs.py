"""What every changed layer reads under each adapter's own instructions, captured group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from customize.adapters.apply import apply_adapters, module_of
from customize.adapters.file import AdapterFile
from customize.editing.sample import sample
from customize.families.sampling_defaults import Sampling
from customize.merging.by_edits.moments import can_capture, capturing, in_groups
from customize.merging.by_edits.trial_edits import TrialEdits, requests_of, varied
from customize.shapes import Example

STEPS = 6
"""Sampling steps of the edits that are captured: levels far apart tell most."""
MOST_BYTES = 2 << 30
"""Memory for the moments of one group of layers; edits are made again for each group."""


@dataclass(frozen=True)
class LayerMoments:
    """What one layer read: second moments (K, K) under each adapter's edits, and generic ones."""

    own: list[Tensor]
    generic: Tensor


class Evidence:
    """The moments of a model's layers, made when a layer of a new group is asked for."""

    def __init__(
        self,
        pipeline: Any,
        sampling: Sampling,
        adapters: Sequence[AdapterFile],
        asked: Sequence[TrialEdits],
        own: Sequence[Example],
        layers: Sequence[str],
        *,
        at_once: int = 8,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Take over an unchanged pipeline; ask for `layers` in this order, or groups come twice.

        Each adapter makes the edits it is `asked` for, and the base the edits `own`, which are
        generic.
        """
        self._pipeline, self._adapters = pipeline, tuple(adapters)
        self._sampling = replace(sampling, steps=min(sampling.steps, STEPS))
        self._examples = [varied(asked, owner) for owner in range(len(adapters))]
        assert all(self._examples), "an adapter without edits of its own"
        self._own, self._at_once = tuple(own), at_once
        modules = {layer: module_of(pipeline, layer) for layer in layers}
        fit = {layer: module for layer, module in modules.items() if can_capture(module)}
        self._groups = [tuple(g) for g in in_groups(fit, len(adapters) + 1, most_bytes)]
        self._held: dict[str, LayerMoments] = {}

    @property
    def layers(self) -> frozenset[str]:
        """Return the layers that can be captured."""
        return frozenset(layer for group in self._groups for layer in group)

    def of(self, layer: str) -> LayerMoments:
        """Return what one of `layers` reads."""
        if layer not in self._held:
            (group,) = (group for group in self._groups if layer in group)
            self._held.clear()
            self._held = self._capture(group)
        return self._held[layer]

    def _capture(self, group: Sequence[str]) -> dict[str, LayerMoments]:
        own = [
            self._moments(adapter, examples, group)
            for adapter, examples in zip(self._adapters, self._examples, strict=True)
        ]
        generic = self._moments(None, self._own, group)
        return {
            layer: LayerMoments([moments[layer] for moments in own], generic[layer])
            for layer in group
        }

    def _moments(
        self, adapter: AdapterFile | None, examples: Sequence[Example], group: Sequence[str]
    ) -> dict[str, Tensor]:
        applied = apply_adapters(self._pipeline, [] if adapter is None else [(adapter, 1.0)])
        try:
            modules = {layer: module_of(self._pipeline, layer) for layer in group}
            with capturing(modules) as found:
                sample(self._pipeline, requests_of(examples), self._sampling, self._at_once)
        finally:
            applied.remove()
        return {layer: moments.mean.cpu() for layer, moments in found.items()}
