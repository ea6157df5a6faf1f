"""Merge by least squares on what layers read: each change where its own concept is asked for.

Where keys and values read text alone, Custom Diffusion (arXiv 2212.04488, eq. 4) constrains a merge
on the concepts' own words. Other layers read pictures too, so their inputs are captured while the
concepts' own instructions are carried out, and the constraint becomes a least-squares fit, as in
RegMean (arXiv 2212.09849, eq. 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from customize.adapters.factors import Limits
from customize.merging.by_edits.layer_inputs import Evidence
from customize.merging.header import method_options
from customize.merging.job import Job
from customize.merging.layers import MergedChange, MergedLayer, combine, cut
from customize.merging.merge_files import Merged, check_output_file, write_merged
from customize.merging.methods import Linear, Regression

if TYPE_CHECKING:
    from customize.merging.by_edits.editing_job import EditingJob


PRESERVE, RIDGE = Regression.preserve, Regression.ridge


@torch.no_grad()
def regress(
    deltas: Sequence[Tensor],
    moments: Sequence[Tensor],
    generic_KK: Tensor | None = None,
    *,
    preserve: float = PRESERVE,
    ridge: float = RIDGE,
) -> Tensor:
    """Merge the changes (O, I, ...) of one layer into the one that minimizes, over D,

        sum_i E|D x_i - D_i x_i|^2 + preserve E|D x_g|^2 + ridge m |D - sum_i D_i|^2.

    x_i are the inputs read under adapter i's own instructions and x_g those under generic ones,
    given by their second moments E[x x^T] (K, K), with K = I times the kernel's area; m is the mean
    diagonal of the moments' weighted sum, so that `ridge` has no unit. Directions that nothing read
    keep plain addition. One adapter has nothing to be reconciled with and is returned as it is.
    """
    assert len(deltas) == len(moments) > 0
    if len(deltas) == 1:
        return deltas[0].float()
    flat = [delta.double().flatten(1) for delta in deltas]
    curvature_KK = torch.stack([moment.double() for moment in moments]).sum(0)
    if generic_KK is not None:
        curvature_KK = curvature_KK + preserve * generic_KK.double()
    held = ridge * float(curvature_KK.diagonal().mean()) or 1.0
    lower_KK, held = _factor(curvature_KK, held)
    wanted_OK = held * torch.stack(flat).sum(0)
    for delta_OK, moment_KK in zip(flat, moments, strict=True):
        wanted_OK += delta_OK @ moment_KK.double()
    return torch.cholesky_solve(wanted_OK.T, lower_KK).T.float().reshape(deltas[0].shape)


def _factor(curvature_KK: Tensor, held: float) -> tuple[Tensor, float]:
    """Return the Cholesky factor of the curvature plus `held` on its diagonal, and `held`.

    Where rounding in the moments outweighs so small a ridge, it grows until it does not.
    """
    unit_KK = torch.eye(len(curvature_KK), dtype=torch.float64)
    while True:
        lower_KK, failed = torch.linalg.cholesky_ex(curvature_KK + held * unit_KK)
        if not failed:
            return lower_KK, held
        held *= 10


def merge_by_regression(
    stage: EditingJob,
    output: Path,
    *,
    evidence: Evidence | None = None,
    limits: Limits | None = None,
    preserve: float = PRESERVE,
    ridge: float = RIDGE,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge the stage's job by least squares on captured inputs and write `output`.

    See `regress` for `preserve` and `ridge`. Raises MergeError and OutputExistsError.
    """
    check_output_file(output, stage.job.files, overwrite=overwrite)
    regressing = Regressing(
        stage.job,
        evidence or stage.evidence(),
        limits or Limits(),
        preserve=preserve,
        ridge=ridge,
    )
    merged = write_merged(
        stage.job,
        regressing,
        output,
        method="regression",
        options={
            **{"preserve": preserve, "ridge": ridge, "otherwise": "linear"},
            **method_options(limits or Limits()),
        },
        dtype=dtype,
        overwrite=overwrite,
    )
    return replace(merged, otherwise=tuple(regressing.otherwise))


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

    def __call__(self, layer: MergedLayer) -> MergedChange:
        """Merge one layer. An input that leaves it alone asks for no change of what it reads."""
        if layer.name not in self._evidence.layers:
            self.otherwise.append(layer.name)
            return combine(Linear(), layer, self._limits)
        deltas = [
            item.weight * layer.delta(item) if item in layer.inputs else torch.zeros(layer.shape)
            for item in self._job.inputs
        ]
        seen = self._evidence.of(layer.name)
        change = MergedChange(full=regress(deltas, seen.own, seen.generic, **self._options))
        return cut(change, self._limits) if self._limits.cuts else change
