"""Prove written files: read each back, and compare weights and seeded edits with the adapter.

A layer matches when the relative error of its change (Frobenius) is what writing it announced; a
layer the adapter leaves alone must come back bit for bit. Edits are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from customize.errors import AdapterFileError, BaseModelError, ExportError
from customize.exporting.proof.compare_edits import EditChange, compare_edits
from customize.exporting.proof.compare_weights import (
    ReaderVerdict,
    is_cut,
    judge,
    largest_difference,
)
from customize.exporting.proof.readers import open_plain, read_back
from customize.exporting.proof.sample_edits import SampleEdit, choose_samples, edited
from customize.exporting.proof.without_base import check_files
from customize.exporting.proof.written_files import remove
from customize.exporting.targets import Target, Written

if TYPE_CHECKING:
    from customize.adapters.file import AdapterFile
    from customize.families.base import Base
    from customize.scoring.items import Models

# How many edits tell what cutting costs; one is enough to see that nothing was lost.
_EDITS = 4


@dataclass(frozen=True)
class OwnEdits:
    """Edits by the adapter itself (B, H, W, 3), that others are held to."""

    samples: tuple[SampleEdit, ...]
    edits_BHWC: np.ndarray


@dataclass(frozen=True)
class Proof:
    """What reading one target back found; `change` of the edits where low rank was cut."""

    verdicts: tuple[ReaderVerdict, ...]
    change: EditChange | None = None


@dataclass(frozen=True)
class Proofs:
    """The targets that were proved, and why the others were not.

    The files of those in `failed` are gone. `unproven` says why the base could not be opened;
    files were then read by our own readers alone, and whole models by none.
    """

    proved: Mapping[Target, Proof] = field(default_factory=dict)
    failed: Mapping[Target, str] = field(default_factory=dict)
    unproven: str | None = None

    @property
    def verdicts(self) -> list[ReaderVerdict]:
        """List the verdicts on all targets."""
        return [verdict for proof in self.proved.values() for verdict in proof.verdicts]


def prove(
    written: Sequence[Written], adapter: AdapterFile, base: Base, *, models: Models | None = None
) -> Proofs:
    """Verify every target with edits; what fails is removed and named.

    `models` holds the CLIP that scores the edits of a cut adapter, None compares pixels alone.
    Raises AdapterFileError, with every file removed, where the adapter does not fit the base.
    """
    from tqdm import tqdm

    try:
        own = edits_of_adapter(adapter, base, _EDITS if any(map(is_cut, written)) else 1)
    except BaseModelError as error:
        return Proofs(failed=check_files(written, adapter, base), unproven=str(error))
    except AdapterFileError:
        for one in written:
            remove(one)
        raise
    proved: dict[Target, Proof] = {}
    failed: dict[Target, str] = {}
    for one in tqdm(written, desc="verify", unit="target", disable=None, leave=False):
        try:
            proved[one.target] = verify(one, adapter, base, own, models=models)
        except ExportError as error:
            failed[one.target] = str(error)
    return Proofs(proved, failed)


def edits_of_adapter(adapter: AdapterFile, base: Base, count: int = 1) -> OwnEdits:
    """Make `count` edits with the adapter itself; raises BaseModelError and AdapterFileError."""
    from customize.adapters.apply import apply_adapters
    from customize.families.loading.quiet import errors_only

    samples = choose_samples(adapter, base, count)
    with errors_only():
        pipeline = open_plain(base)
        apply_adapters(pipeline, [(adapter, 1.0)])
        return OwnEdits(samples, edited(pipeline, base, samples))


def verify(
    written: Written,
    adapter: AdapterFile,
    base: Base,
    own: OwnEdits | None = None,
    *,
    models: Models | None = None,
) -> Proof:
    """Read one target back by every reader there is and compare; `own` None leaves edits out.

    Raises ExportError, after removing its files, for a target that is not what the adapter is.
    """
    from customize.families.loading.quiet import errors_only

    try:
        with errors_only():
            return _proof(written, adapter, base, own, models)
    except ExportError:
        remove(written)
        raise
    except Exception as error:  # a library may refuse a file in any way it likes
        remove(written)
        first = (str(error).splitlines() or [""])[0]
        raise ExportError(
            f"{written.target}: reading the written files back failed ({type(error).__name__}: "
            f"{first}); expected them to load; they were removed; export to another target"
        ) from error


def _proof(
    written: Written,
    adapter: AdapterFile,
    base: Base,
    own: OwnEdits | None,
    models: Models | None,
) -> Proof:
    verdicts: list[ReaderVerdict] = []
    change = None
    for found in read_back(written, adapter, base):
        if own is None:
            verdicts.append(judge(found, written, adapter, base, None))
            continue
        samples = own.samples if is_cut(written) else own.samples[:1]
        exact_BHWC = own.edits_BHWC[: len(samples)]
        found_BHWC = edited(found.pipeline, base, samples)
        pixels = largest_difference(exact_BHWC, found_BHWC)
        verdicts.append(judge(found, written, adapter, base, pixels))
        if is_cut(written) and change is None:  # what other readers read is the same
            change = compare_edits(exact_BHWC, found_BHWC, samples, models)
    return Proof(tuple(verdicts), change)
