"""Merge adapter files into one adapter file, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from torch import Tensor
from tqdm import tqdm

from customize.adapters.file import stream_adapter
from customize.adapters.header import Header, library_versions
from customize.errors import OutputExistsError
from customize.merging import Concat, Constrained, Dare, Limits, Linear, Method, Svd, Ties
from customize.merging.combining import Change, Layer, combine
from customize.merging.constraining import Constraining
from customize.merging.job import Job, open_job

if TYPE_CHECKING:
    import torch

    from customize.merging.texts import Texts

Combine = Callable[[Layer], Change]


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
    method: Method,
    *,
    weights: Sequence[float] | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    allow_other_base: bool = False,
    texts: Texts | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge adapter files by exact changes of weights and write `output`, whole or not at all.

    `weights` None is 1 for each; `dtype` None is float32. `base` names the base, by default the one
    in the first file; it is opened only where its weights (DoRA) or its text encoder (constrained,
    unless `texts` are given) are needed. Raises MergeError, AdapterFileError, BaseModelError,
    OutputExistsError.
    """
    if output.exists() and not overwrite:
        raise OutputExistsError(
            f"output {output}: it is there already; expected a free name; choose another or allow "
            "replacing it (--overwrite, or overwrite=True)"
        )
    job = open_job(files, weights, base=base, allow_other_base=allow_other_base)
    return merge_job(
        job, output, method, limits=limits, texts=texts, dtype=dtype, overwrite=overwrite
    )


def merge_job(
    job: Job,
    output: Path,
    method: Method,
    *,
    limits: Limits | None = None,
    texts: Texts | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> Merged:
    """Merge an open job as `merge` does its files."""
    limits = limits or Limits()
    return write_merged(
        job,
        _combiner(job, method, limits, texts),
        output,
        method=name_of(method),
        options={**_options(method), **_options(limits)},
        dtype=dtype,
        overwrite=overwrite,
    )


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

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from job.vocabulary.rows.items()
        # disable=None is tqdm's "only on a terminal"
        for layer in tqdm(job.layers(), "merging", len(job), unit="layer", disable=None):
            change = combine_one(layer)
            if change.loss is not None:
                losses[layer.name] = change.loss
            yield from change.tensors(layer.name)

    def header() -> Header:
        return _header(job, method, options, losses)

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


def name_of(method: Method) -> str:
    """Return what the command line calls a method.

    >>> name_of(Linear())
    'linear'
    """
    return type(method).__name__.lower()


def _options(chosen: Method | Limits) -> dict[str, Any]:
    """List what was chosen; a method within a method by its name and options."""
    found: dict[str, Any] = {}
    for option in fields(chosen):
        value = getattr(chosen, option.name)
        if is_dataclass(value):
            found |= {option.name: name_of(value), **_options(value)}  # type: ignore[arg-type]
        elif value is not None:
            found[option.name] = value
    return found


def _combiner(job: Job, method: Method, limits: Limits, texts: Texts | None) -> Combine:
    match method:
        case Constrained():
            return Constraining(job, method, limits, texts)
        case Linear() | Concat() | Svd() | Ties() | Dare():
            return lambda layer: combine(method, layer, limits)
        case _:
            assert_never(method)


def _header(
    job: Job, method: str, options: Mapping[str, Any], losses: Mapping[str, float]
) -> Header:
    """Describe the merged adapter: the base of the first input, the concepts of all."""
    first = job.inputs[0].header
    told: dict[str, Any] = {
        "merged_by": method,
        "options": dict(options),
        "inputs": [
            {"file": item.path.name, "weight": item.weight, "sha256": item.sha256}
            for item in job.inputs
        ],
    }
    if losses:
        told["loss_of_truncation"] = max(losses.values())
    return Header(
        family=first.family,
        base_name=first.base_name,
        base_fingerprint=first.base_fingerprint,
        method="merged",
        targets=tuple(dict.fromkeys(t for item in job.inputs for t in item.header.targets)),
        concepts=job.vocabulary.concepts,
        versions=library_versions(),
        pairs={f"{i.path.stem}/{k}": v for i in job.inputs for k, v in i.header.pairs.items()},
        training=told,
    )
