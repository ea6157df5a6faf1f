"""Check written files whose base cannot be opened: by our own readers, without any edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from customize.errors import AdapterFileError, ExportError
from customize.exporting.changes import Changes, delta_of
from customize.exporting.fit_to_target import relative_error
from customize.exporting.formats.native import from_native
from customize.exporting.proof.compare_weights import ReaderVerdict, allowed, refuse_unproven
from customize.exporting.proof.written_files import read_changes, remove
from customize.exporting.targets import Target, Written
from customize.families.loading.layer_weights import BaseWeights

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base


def check_files(written: Sequence[Written], adapter: AdapterFile, base: Base) -> dict[Target, str]:
    """Read all targets but whole models back; remove those that are wrong and say why."""
    weights = BaseWeights(base)
    exact = from_native(adapter, weights)
    failed: dict[Target, str] = {}
    for one in written:
        if one.target == "full-model":
            continue
        try:
            compare_changes(read_changes(one, adapter), exact, one, weights)
        except (ExportError, AdapterFileError) as error:
            remove(one)
            failed[one.target] = str(error)
    return failed


def compare_changes(found: Changes, exact: Changes, written: Written, weights: BaseWeights) -> None:
    """Compare what was read with what the adapter says; raises ExportError where they differ."""
    errors = {
        layer: relative_error(found.layers[layer], change, weights[layer])
        for layer, change in exact.layers.items()
        if layer in found.layers
    }
    others = [layer for layer in found.layers if layer not in exact.layers]
    verdict = ReaderVerdict(
        target=written.target,
        reader="customize",
        matched=sum(error <= allowed(written, layer) for layer, error in errors.items()),
        expected=len(exact.layers),
        error=max(errors.values(), default=0.0),
        pixels=None,
        strangers=tuple(x for x in others if delta_of(found.layers[x], weights[x]).any()),
    )
    refuse_unproven(verdict, written)
