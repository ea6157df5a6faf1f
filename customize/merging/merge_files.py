"""Merge adapter files into one adapter file, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from torch import Tensor
from tqdm import tqdm

from customize.adapters.factors import Limits
from customize.adapters.file import stream_adapter
from customize.adapters.header import Header
from customize.errors import AdapterFileError
from customize.files import Used, check_place, refuse_existing
from customize.merging.constrained.merge_layers import Constraining
from customize.merging.header import merged_header, method_name, method_options
from customize.merging.job import Job, open_job
from customize.merging.layers import MergedChange, MergedLayer, combine
from customize.merging.methods import Concat, Constrained, Dare, Linear, MergeMethod, Svd, Ties
from customize.merging.size import check_size

if TYPE_CHECKING:
    import torch

    from customize.merging.constrained.instruction_rows import InstructionTexts

Combine = Callable[[MergedLayer], MergedChange]


@dataclass(frozen=True)
class Merged:
    """What a merge wrote.

    `losses` has the relative error of each layer that was cut to low rank. Of `constrained`:
    `missed` is how far each input's own constraints are missed, relative, in the inputs' order;
    `otherwise` the layers that read more than text. `renamed` has each input's words that clashed,
    old to new.
    """

    path: Path
    header: Header
    losses: Mapping[str, float]
    missed: tuple[float, ...]
    otherwise: tuple[str, ...]
    renamed: tuple[Mapping[str, str], ...]


def merge(
    files: Sequence[Path],
    output: Path,
    method: MergeMethod,
    *,
    weights: Sequence[float] | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    allow_other_base: bool = False,
    texts: InstructionTexts | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge adapter files by exact changes of weights and write `output`, whole or not at all.

    `weights` None is 1 for each; `dtype` None is float32. `base` names the base, by default the one
    in the first file; it is opened only where its weights (DoRA) or its text encoder (constrained,
    unless `texts` are given) are needed. Raises MergeError, AdapterFileError, BaseModelError,
    OutputExistsError.
    """
    check_output_file(output, files, overwrite=overwrite)
    job = open_job(files, weights, base=base, allow_other_base=allow_other_base)
    return merge_job(
        job, output, method, limits=limits, texts=texts, dtype=dtype, overwrite=overwrite
    )


def check_output_file(output: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse an output that is one of the inputs, or that is there and may not be replaced.

    Raises OutputError.
    """
    used = [Used(f"the adapter to merge {path}", path, shared=True) for path in inputs]
    check_place(output, used)
    refuse_existing(output, overwrite=overwrite)


def merge_job(
    job: Job,
    output: Path,
    method: MergeMethod,
    *,
    limits: Limits | None = None,
    texts: InstructionTexts | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge an open job as `merge` does its files."""
    limits = limits or Limits()
    check_size(job, output, method, limits, width=dtype.itemsize if dtype else 4)
    return write_merged(
        job,
        _combiner(job, method, limits, texts),
        output,
        method=method_name(method),
        options={**method_options(method), **method_options(limits)},
        dtype=dtype,
        overwrite=overwrite,
    )


def _base_place(job: Job) -> list[Used]:
    """Say where the base lies, nowhere where nobody knows: not every way to merge reads it."""
    try:
        return [Used("the base", Path(job.base_name))]
    except AdapterFileError:
        return []


def write_merged(
    job: Job,
    combine_one: Combine,
    output: Path,
    *,
    method: str,
    options: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge every layer by `combine_one` and write the file; its header tells of `options`."""
    losses: dict[str, float] = {}
    check_place(output, _base_place(job))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from job.vocabulary.rows.items()
        # disable=None is tqdm's "only on a terminal"
        for layer in tqdm(job.layers(), "merging", len(job), unit="layer", disable=None):
            change = combine_one(layer)
            if change.loss is not None:
                losses[layer.name] = change.loss
            yield from change.tensors(layer.name)

    def header() -> Header:
        return merged_header(job, method, options, losses)

    with ThreadPoolExecutor(1) as beside:
        beside.map(lambda item: item.sha256, job.inputs)  # hashes are ready when the header is due
        stream_adapter(output, header, tensors(), dtype=dtype, overwrite=overwrite)
    kept = combine_one if isinstance(combine_one, Constraining) else None
    return Merged(
        path=output,
        header=header(),
        losses=losses,
        missed=kept.missed if kept else (),
        otherwise=tuple(kept.otherwise) if kept else (),
        renamed=job.vocabulary.renamed,
    )


def _combiner(
    job: Job, method: MergeMethod, limits: Limits, texts: InstructionTexts | None
) -> Combine:
    match method:
        case Constrained():
            return Constraining(job, method, limits, texts)
        case Linear() | Concat() | Svd() | Ties() | Dare():
            return lambda layer: combine(method, layer, limits)
        case _:
            assert_never(method)
