"""Merge the layers of a job under constraints, and measure how well these are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from customize.adapters.factors import Limits
from customize.errors import MergeError
from customize.merging.constrained.constraints import Solver, constrained, wanted
from customize.merging.constrained.instruction_rows import InstructionTexts, read_texts
from customize.merging.inputs import placeholder
from customize.merging.job import Job
from customize.merging.layers import MergedChange, MergedLayer, combine, cut
from customize.merging.methods import Constrained, Linear

_MEASURED = 32
_EXACT, _AGREED, _PROBES = 1e-8, 1e-4, 8
"""The ridge for constraints that can all be kept, what then may be missed, and how many random
combinations of a layer's outputs tell whether they can.
"""


class Constraining:
    """Merge each layer when called with it: by the closed form where text is all that is read.

    `otherwise` collects the layers of the denoiser that read more and went the other way.
    """

    def __init__(
        self, job: Job, method: Constrained, limits: Limits, texts: InstructionTexts | None = None
    ) -> None:
        """Solve for what all layers share; `texts` None encodes them with the job's base.

        One input has nothing to be reconciled with: its changes stay as they are. Raises MergeError
        for a family none of whose layers reads text alone.
        """
        if not job.profile.layers.text_alone:
            raise MergeError(
                "method constrained: in bases of this family what reads text has read pictures and "
                "the step too, but for the first layers; expected layers that read text alone; use "
                "--method regression or distill, which look at edits, or linear"
            )
        self._job, self._method, self._limits = job, method, limits
        self.otherwise: list[str] = []
        self._wanted, self._missed = [0.0] * len(job.inputs), [0.0] * len(job.inputs)
        self._alone = len(job.inputs) == 1
        if self._alone:
            return
        if texts is None:
            text = _MergedText(job, method, limits)
            texts = read_texts(job.base, job.inputs, job.vocabulary, text)
        rows = [row.compact() for row in texts.asked]
        solver = Solver([row.merged for row in rows], texts.generic)
        self._rows = [row.float() for row in rows]
        self._maps = [each.float() for each in solver.maps(method.ridge)]
        self._exact = None
        if method.ridge is None:
            self._exact = [each.float() for each in solver.maps(_EXACT)]

    @property
    def missed(self) -> tuple[float, ...]:
        """How far each input's constraints are missed so far: norm over that of what is wanted."""
        pairs = zip(self._missed, self._wanted, strict=True)
        return tuple((off / whole) ** 0.5 if whole else 0.0 for off, whole in pairs)

    def __call__(self, layer: MergedLayer) -> MergedChange:
        """Merge one layer."""
        if not self._job.profile.reads_text_alone(layer.name):
            if layer.name.startswith("denoiser."):
                self.otherwise.append(layer.name)
            return combine(self._method.otherwise, layer, self._limits)
        if self._alone:
            return combine(Linear(), layer, self._limits)
        targets = self._targets(layer)
        exact = self._exact if self._exact and self._agree(targets, self._exact) else None
        merged = constrained(targets, exact or self._maps)
        self._measure(merged, targets)
        change = MergedChange(full=merged)
        return cut(change, self._limits) if self._limits.cuts else change

    def _targets(self, layer: MergedLayer) -> list[Tensor]:
        """Say what each input wants its rows to become, those that leave the layer alone too."""
        moved = not all(row.same for row in self._rows)
        base = self._job.weight_of(layer.name) if moved else None
        found = list[Tensor]()
        for item, row in zip(self._job.inputs, self._rows, strict=True):
            changes = item in layer.inputs
            delta = layer.delta(item) if changes else placeholder(layer.shape)
            found.append(wanted(delta, item.weight, row, base))
        return found

    def _agree(self, targets: list[Tensor], exact: list[Tensor]) -> bool:
        """Tell whether one change can give every input what it wants."""
        generator = torch.Generator().manual_seed(0)
        probe_PN = torch.randn(_PROBES, len(targets[0]), generator=generator)
        asked = [probe_PN @ target for target in targets]
        merged = constrained(asked, exact)
        most = max(float(target.norm()) for target in asked)
        return all(
            float((merged @ row.merged.T - target).norm())
            <= _AGREED * (float(target.norm()) or most)
            for row, target in zip(self._rows, asked, strict=True)
        )

    def _measure(self, merged: Tensor, targets: list[Tensor]) -> None:
        """Compare answers along the directions that hold most of each input's rows."""
        for index, (row, whole) in enumerate(zip(self._rows, targets, strict=True)):
            target = whole[:, -_MEASURED:]
            off = merged @ row.merged[-_MEASURED:].T - target
            self._missed[index] += float(off.square().sum())
            self._wanted[index] += float(target.square().sum())


class _MergedText(Mapping[str, Tensor]):
    """The merged changes of the text encoders as they are stored, each made when asked for."""

    def __init__(self, job: Job, method: Constrained, limits: Limits) -> None:
        self._job, self._method, self._limits = job, method, limits
        names = {name for item in job.inputs for name in item.shapes}
        self._names = sorted(f"{n}.delta" for n in names if n.startswith("text_encoder"))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        layer = self._job.layer(name.removesuffix(".delta"))
        return combine(self._method.otherwise, layer, self._limits).product()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
