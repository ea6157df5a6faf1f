"""`customize merge`: several adapters into one."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from customize.drawing.table import table
from customize.errors import MergeError

if TYPE_CHECKING:
    from customize.merging.merge_files import Merged
    from customize.merging.methods import Concat, Dare, Linear, MergeMethod, Ties

SIMPLE = ("linear", "concat", "ties", "dare")
LOOKING = ("regression", "distill", "auto")
METHODS = (*SIMPLE, "svd", "constrained", *LOOKING)
_TAKEN_BY = {
    "density": {"ties", "dare"},
    "seed": {"dare"},
    "then": {"dare"},
    "ridge": {"constrained", "regression"},
    "preserve": {"regression", "distill"},
    "steps": {"distill"},
    "otherwise": {"constrained"},
}


def add_to(commands: Any) -> None:
    """Describe `merge` to the command line's parser."""
    command = commands.add_parser("merge", help="merge adapters into one")
    add = command.add_argument
    add(
        "files",
        nargs="*",
        metavar="FILE[:WEIGHT]",
        help="adapters of one base, each with what its change is multiplied by (1)",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="merged.safetensors")
    add("--overwrite", action="store_true", help="replace the output if it exists")
    add("--method", choices=METHODS, default="constrained", help="docs/merging.md (constrained)")
    add(
        "--otherwise",
        choices=SIMPLE,
        help="constrained: layers that read pictures too (linear)",
    )
    add(
        "--ridge",
        type=float,
        metavar="SHARE",
        help="constrained: how far texts give way (chosen); regression: pull to addition (1e-6)",
    )
    add(
        "--preserve",
        type=float,
        metavar="X",
        help="regression, distill: weight of the base's own edits (0.1, 4)",
    )
    add("--steps", type=int, metavar="N", help="distill: optimizer steps (300)")
    add("--density", type=float, metavar="SHARE", help="what stays: 0.2 of ties, 0.5 of dare")
    add("--seed", type=int, help="dare: what is dropped (0)")
    add("--then", choices=["linear", "ties"], help="dare: add, or elect signs (linear)")
    add("--rank", type=int, metavar="R", help="store each layer at this rank at most")
    add("--energy", type=float, metavar="SHARE", help="keep this share of the singular values' sum")
    add("--error", type=float, metavar="SHARE", help="lose at most this share of each layer's norm")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    add(
        "--base",
        metavar="BASE",
        help="embedded, hub id, folder or file (the first file's)",
    )
    add("--allow-other-base", action="store_true", help="merge adapters of unequal bases")
    add("--report", type=Path, metavar="FOLDER", help="say there what was kept of every concept")
    add(
        "--pairs",
        action="append",
        default=list[str](),
        metavar="CONCEPT=FOLDER",
        help="regression, distill, auto, --report: where a concept's pairs are (where its recipe "
        "says)",
    )
    add("--clip", metavar="CLIP", help="--report: folder or hub id (the base's own, if any)")
    add("--device", help="where edits are made: cuda, mps or cpu (the best there is)")
    command.set_defaults(run=merge)


def merge(arguments: argparse.Namespace) -> int:
    """Merge, and say what was renamed, cut, missed and left to another method."""
    _check(arguments)
    import torch

    from customize.adapters.factors import Limits
    from customize.editing.options import with_strength

    files = [with_strength(text, "weight") for text in arguments.files]
    paths = [path for path, _ in files]
    options: Any = {
        "weights": [weight for _, weight in files],
        "limits": Limits(arguments.rank, arguments.energy, arguments.error),
        "base": arguments.base,
        "allow_other_base": arguments.allow_other_base,
        "dtype": getattr(torch, arguments.dtype),
        "overwrite": arguments.overwrite,
    }
    if arguments.method in LOOKING or arguments.report:
        merged = _merge_looking(paths, arguments, options)
    else:
        from customize.merging.merge_files import merge as merge_files

        merged = merge_files(paths, arguments.output, method_of(arguments), **options)
    print(table([*_rows(merged, paths)]))
    return 0


def _merge_looking(paths: list[Path], arguments: argparse.Namespace, options: Any) -> Merged:
    """Merge by a method that looks at edits, or report on any."""
    from customize.merging.by_edits.merge_by_edits import EditTrials, merge_by_edits
    from customize.merging.methods import Distillation, Regression

    match arguments.method:
        case "auto":
            way = "auto"
        case "regression":
            way = Regression(**_given(arguments, "preserve", "ridge"))
        case "distill":
            way = Distillation(**_given(arguments, "preserve", "steps"))
        case _:
            way = method_of(arguments)
    looking = EditTrials(
        pairs=dict(_with_folder(text) for text in arguments.pairs),
        report=arguments.report,
        clip=arguments.clip,
        device=arguments.device,
    )
    return merge_by_edits(paths, arguments.output, way, looking, **options)


def _with_folder(text: str) -> tuple[str, Path]:
    """Split `my_dog=pairs/dogs`."""
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise MergeError(f"--pairs {text}: expected CONCEPT=FOLDER; write --pairs my_dog={text}")
    return name, Path(folder)


def method_of(arguments: argparse.Namespace) -> MergeMethod:
    """Make the method of the parsed options; an option left out keeps the method's own default."""
    from customize.merging.methods import Constrained, Svd

    match arguments.method:
        case "svd":
            return Svd()
        case "constrained":
            otherwise = _simple(arguments.otherwise or "linear", arguments)
            return Constrained(**_given(arguments, "ridge"), otherwise=otherwise)
        case name:
            return _simple(name, arguments)


def _simple(name: str, arguments: argparse.Namespace) -> Linear | Concat | Ties | Dare:
    from customize.merging.methods import Concat, Dare, Linear, Ties

    match name:
        case "linear":
            return Linear()
        case "concat":
            return Concat()
        case "ties":
            return Ties(**_given(arguments, "density"))
        case _:
            return Dare(**_given(arguments, "density", "seed", "then"))


def _given(arguments: argparse.Namespace, *names: str) -> Mapping[str, Any]:
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options out of range, and those that the chosen method would not look at."""
    for name in ("density", "energy", "error"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value <= 1:
            raise MergeError(f"--{name} {value:g}: expected a share above 0, at most 1; 1 is all")
    if arguments.rank is not None and arguments.rank < 1:
        raise MergeError(f"--rank {arguments.rank}: expected at least 1; leave it out for no limit")
    if arguments.steps is not None and arguments.steps < 1:
        raise MergeError(f"--steps {arguments.steps}: expected at least 1; leave it out for 300")
    if arguments.ridge is not None and not 0 < arguments.ridge < float("inf"):
        raise MergeError(f"--ridge {arguments.ridge:g}: expected a number above 0, such as 1e-6")
    if arguments.preserve is not None and not 0 <= arguments.preserve < float("inf"):
        raise MergeError(
            f"--preserve {arguments.preserve:g}: expected 0 or more; 1 is as a concept"
        )
    if arguments.clip is not None and arguments.report is None:
        raise MergeError("--clip: no report is asked for; add --report FOLDER or leave it out")
    if arguments.method not in LOOKING and arguments.report is None:
        for name in ("pairs", "device"):
            if getattr(arguments, name):
                raise MergeError(
                    f"--{name}: --method {arguments.method} looks at no edits; leave it out, or "
                    "add --report FOLDER"
                )
    used = {arguments.method, arguments.otherwise}
    for name, methods in _TAKEN_BY.items():
        if getattr(arguments, name) is not None and not used & methods:
            raise MergeError(
                f"--{name}: --method {arguments.method} does not use it; expected "
                f"{' or '.join(sorted(methods))}; leave it out or choose that method"
            )


def _rows(merged: Merged, files: Iterable[Path]) -> Iterator[list[str]]:
    """Tell what was written, as rows of a table."""
    yield ["merged", f"{merged.path} ({merged.path.stat().st_size / 1e6:.1f} MB)"]
    for concept in merged.header.concepts:
        yield ["concept", f"{concept.name}{f', word {concept.word}' if concept.word else ''}"]
    if merged.losses:
        worst = max(merged.losses, key=lambda layer: merged.losses[layer])
        yield [
            "cut to low rank",
            f"lost {mean(merged.losses.values()):.2%} of a layer's norm on average, at most "
            f"{merged.losses[worst]:.2%} ({worst})",
        ]
    for path, missed in zip(files, merged.missed, strict=bool(merged.missed)):
        yield ["constraints", f"{path}: missed by {missed:.2%} on its own instructions"]
    if merged.otherwise:
        way = merged.header.training["options"]["otherwise"]
        text = f"{len(merged.otherwise)} layers that read more than text were merged by {way}"
        yield ["otherwise", text]
