"""Merge the layers of a job by least squares on what they read while concepts are asked for."""

from __future__ import annotations

from typing import Any

import torch

from customize.adapters.factors import Limits
from customize.merging import Linear
from customize.merging.combining import Change, Layer, combine, cut
from customize.merging.evidence import Evidence
from customize.merging.job import Job
from customize.merging.regression import PRESERVE, RIDGE, regress


class Regressing:
    """Merge each layer when called with it; `otherwise` collects those that could only be added."""

    def __init__(
        self,
        job: Job,
        evidence: Evidence,
        limits: Limits,
        *,
        preserve: float = PRESERVE,
        ridge: float = RIDGE,
    ) -> None:
        """Take evidence of the job's inputs, in their order."""
        self._job, self._evidence, self._limits = job, evidence, limits
        self._options: Any = {"preserve": preserve, "ridge": ridge}
        self.otherwise: list[str] = []

    def __call__(self, layer: Layer) -> Change:
        """Merge one layer. An input that leaves it alone asks for no change of what it reads."""
        if layer.name not in self._evidence.layers:
            self.otherwise.append(layer.name)
            return combine(Linear(), layer, self._limits)
        deltas = [
            item.weight * layer.delta(item) if item in layer.inputs else torch.zeros(layer.shape)
            for item in self._job.inputs
        ]
        seen = self._evidence.of(layer.name)
        change = Change(full=regress(deltas, seen.own, seen.generic, **self._options))
        return cut(change, self._limits) if self._limits.cuts else change
