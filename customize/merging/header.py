"""The header of a merged file: what it was made of, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from statistics import fmean
from typing import Any

from customize.adapters.factors import Limits
from customize.adapters.header import Header, library_versions
from customize.adapters.labels import labels_of
from customize.merging.job import Job
from customize.merging.methods import MergeMethod


def merged_header(
    job: Job, method: str, options: Mapping[str, Any], losses: Mapping[str, float]
) -> Header:
    """Describe the merged adapter: the base of the first input, the concepts of all."""
    first, labels = job.inputs[0].header, labels_of(job.files)
    told: dict[str, Any] = {
        "merged_by": method,
        "options": dict(options),
        "inputs": [
            {"name": label, "weight": item.weight, "sha256": item.sha256}
            for label, item in zip(labels, job.inputs, strict=True)
        ],
    }
    if losses:
        told["loss_of_truncation"] = max(losses.values())
        told["mean_loss_of_truncation"] = fmean(losses.values())
    return Header(
        family=first.family,
        base_name=first.base_name,
        base_fingerprint=first.base_fingerprint,
        method="merged",
        targets=tuple(dict.fromkeys(t for item in job.inputs for t in item.header.targets)),
        concepts=job.vocabulary.concepts,
        versions=library_versions(),
        pairs={
            f"{label}/{name}": digest
            for label, item in zip(labels, job.inputs, strict=True)
            for name, digest in item.header.pairs.items()
        },
        training=told,
    )


def method_name(method: MergeMethod) -> str:
    """Return what the command line calls a method.

    >>> from customize.merging import Linear
    >>> method_name(Linear())
    'linear'
    """
    return type(method).__name__.lower()


def method_options(chosen: MergeMethod | Limits) -> dict[str, Any]:
    """List what was chosen; a method within a method by its name and options."""
    found: dict[str, Any] = {}
    for option in fields(chosen):
        value = getattr(chosen, option.name)
        if is_dataclass(value):
            found |= {option.name: method_name(value), **method_options(value)}  # type: ignore[arg-type]
        elif value is not None:
            found[option.name] = value
    return found
