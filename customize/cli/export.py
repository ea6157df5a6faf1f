"""`customize export` and `customize import`: adapters to and from other programs' files."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from customize.cli.inputs import used_bases
from customize.drawing.escape import visible
from customize.drawing.table import table
from customize.errors import AdapterFileError, ExportError
from customize.exporting.targets import TARGETS, ExportOptions, FilePrecision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from customize.adapters.file import AdapterFile
    from customize.exporting.proof.prove import Proofs
    from customize.exporting.targets import Written
    from customize.families.base import Base
    from customize.scoring.items import Models


def add_to(commands: Any) -> None:
    """Describe both commands to the command line's parser."""
    _add_export(commands)
    _add_import(commands)


def _add_export(commands: Any) -> None:
    command = commands.add_parser("export", help="write an adapter for another program")
    add = command.add_argument
    add("file", type=Path, metavar="FILE", help="adapter.safetensors")
    add("--to", required=True, choices=[*TARGETS, "all"], metavar="TARGET", help=", ".join(TARGETS))
    add("-o", "--output", type=Path, metavar="FOLDER", help="default: exports/TARGET beside FILE")
    add("--name", metavar="NAME", help="the files' name (the concepts')")
    add("--base", metavar="BASE", help="embedded, hub id, folder or file (the adapter's)")
    add("--rank", type=int, help="highest rank of a layer")
    add("--energy", type=float, help="least share of the singular values' sum, such as 0.6")
    add("--error", type=float, help="highest relative error of a layer, such as 0.01")
    add("--size-mb", type=float, metavar="MB", help="size that the weights' file may have")
    add("--dtype", choices=get_args(FilePrecision), help="precision of the weights (float16)")
    add("--clip", metavar="CLIP", help="scores edits of a cut adapter (the embedded base's own)")
    add("--no-verify", dest="verify", action="store_false", help="do not read the files back")
    add("--overwrite", action="store_true", help="replace files (all: an earlier all's folders)")
    command.set_defaults(run=export)


def _add_import(commands: Any) -> None:
    command = commands.add_parser("import", help="read an adapter that another program made")
    add = command.add_argument
    add(
        "file",
        type=Path,
        metavar="FILE",
        help="LoRA, LyCORIS or Custom Diffusion .safetensors, or a folder of peft's",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the adapter to write")
    add("--base", metavar="BASE", help="base it is to work on (the usual one of its shapes)")
    add(
        "--word",
        action="append",
        default=list[str](),
        metavar="WORD[=FILE]",
        help="a word and its embedding file (FILE itself where that is one); repeat for more",
    )
    add("--drop-biases", action="store_true", help="leave out what adapters cannot hold")
    add("--overwrite", action="store_true", help="replace a file that exists")
    command.set_defaults(run=import_file)


def export(arguments: argparse.Namespace) -> int:
    """Write one target or all, read each file back, and print what it is good for."""
    from customize import exporting
    from customize.adapters.at_base import base_for, check_fit
    from customize.adapters.file import read_adapter
    from customize.exporting.sharing.model_card import latest_preview
    from customize.families.base import resolve_base

    _refuse_without_effect(arguments)
    adapter = read_adapter(arguments.file)
    base = resolve_base(arguments.base or base_for(adapter.header))
    if difference := check_fit(adapter, base):
        warnings.warn(f"{arguments.file}: {difference}", stacklevel=2)
    given = ("name", "rank", "energy", "error", "size_mb", "dtype")
    settings: dict[str, Any] = {name: getattr(arguments, name) for name in given}
    settings["dtype"] = arguments.dtype or ExportOptions.dtype
    options = ExportOptions(**settings, preview=latest_preview(arguments.file))
    folder = arguments.output or arguments.file.parent / "exports" / arguments.to
    overwrite, models = arguments.overwrite, _models(arguments, base)
    if arguments.to != "all":
        one = exporting.export(adapter, base, arguments.to, folder, options, overwrite=overwrite)
        return _tell_one(one, adapter, base, models, verify=arguments.verify)
    made = exporting.export_all(
        *(adapter, base, folder, options),
        overwrite=overwrite,
        verify=arguments.verify,
        models=models,
    )
    for each in made.written:
        _tell_files(each)
    _tell_proofs(made.written, made.proofs)
    for reason in made.refused.values():
        print(f"not written: {reason}")
    print(f"{made.guide}: which file goes where")
    failed = made.proofs.failed if made.proofs else {}
    for reason in failed.values():
        print(f"removed: {reason}", file=sys.stderr)
    return 2 if failed else 0


def _refuse_without_effect(arguments: argparse.Namespace) -> None:
    """Refuse an option that would change nothing of the one target asked for."""
    for name in _WITHOUT_EFFECT.get(arguments.to, ()):
        if getattr(arguments, name) is not None:
            raise ExportError(
                f"--{name.replace('_', '-')} changes nothing of {arguments.to}: {_WHY[name]}; "
                "expected it left out; leave it out, or choose another target"
            )


_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "diffusers": ("name",),
    "peft": ("name",),
    "custom-diffusion": ("name", "dtype"),
    "full-model": ("rank", "energy", "error", "size_mb"),
}
_WHY: Mapping[str, str] = {
    "name": "its files have names of their own",
    "dtype": "it holds whole weights in float32",
    **dict.fromkeys(("rank", "energy", "error", "size_mb"), "it holds whole weights"),
}


def import_file(arguments: argparse.Namespace) -> int:
    """Read another program's file and save it as an adapter."""
    from customize.adapters.file import save_adapter
    from customize.exporting.foreign.import_adapter import import_adapter
    from customize.files import Used, check_place

    output: Path = arguments.output
    if output.suffix != ".safetensors":
        raise AdapterFileError(
            f"{output}: an adapter is saved as safetensors; expected a name that ends in "
            ".safetensors; choose such a name"
        )
    words = [_word(text) for text in arguments.word]
    used = [Used("the file to import", arguments.file)]
    used += [Used(f"the file of {word}", place) for word, place in words if place is not None]
    check_place(output, [*used, *used_bases([arguments.base])])
    adapter, facts = import_adapter(
        arguments.file,
        arguments.base,
        words=words,
        drop_biases=arguments.drop_biases,
    )
    save_adapter(output, adapter.header, adapter.tensors, overwrite=arguments.overwrite)
    print(table([*facts, ("written", f"{output} ({output.stat().st_size / 1e6:.1f} MB)")]))
    return 0


def _word(text: str) -> tuple[str, Path | None]:
    """Split `<my-dog>=my-dog.safetensors`."""
    word, equals, path = text.partition("=")
    return word, Path(path) if equals else None


def _models(arguments: argparse.Namespace, base: Base) -> Models | None:
    """Open the CLIP that scores a cut adapter's edits: the one named, or the embedded base's."""
    clip = arguments.clip or ("embedded" if base.name == "embedded" else None)
    if clip is None or not arguments.verify:
        return None
    from customize.scoring import open_models

    return open_models(clip)


def _tell_one(
    one: Written, adapter: AdapterFile, base: Base, models: Models | None, *, verify: bool
) -> int:
    """Verify a target on its own, and print what it is for."""
    from customize.exporting.proof import prove

    proofs = prove.prove([one], adapter, base, models=models) if verify else None
    if proofs and proofs.failed:
        raise ExportError(proofs.failed[one.target])
    _tell_files(one)
    for note in one.notes:
        print(f"  {visible(note)}")
    _tell_proofs([one], proofs)
    return 0


def _tell_files(one: Written) -> None:
    size = sum(path.stat().st_size for path in one.files) / 1e6
    print(f"{one.target}: {one.files[0]} ({len(one.files)} files, {size:.2f} MB)")


def _tell_proofs(written: Sequence[Written], proofs: Proofs | None) -> None:
    """Print the proof that files read back, and what cutting cost; or that it is not known."""
    from customize.exporting.proof import compare_weights
    from customize.exporting.sharing.readme import error_told

    if proofs and not proofs.unproven:
        print(table(compare_weights.rows(proofs.verdicts), compare_weights.TITLES))
        for target, proof in proofs.proved.items():
            if proof.change is not None:
                print(f"{target}: cut; {proof.change}")
        return
    rows = [[one.target, f"{len(one.errors) or '-'}", error_told(one)] for one in written]
    print(table(rows, ["target", "layers", "largest relative error"]))
    why = f"the base cannot be opened: {proofs.unproven}" if proofs else "--no-verify"
    how = "read back by customize alone" if proofs else "not read back"
    what = ", nor the change in edits measured" if any(map(compare_weights.is_cut, written)) else ""
    print(f"{how}{what} ({why})")
