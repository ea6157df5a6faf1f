"""What `customize edit-folder` takes: its options, checked, and the pictures they name."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.edit import add_base, add_sampling
from customize.cli.inputs import used_adapters, used_bases
from customize.errors import EditError, Fault
from customize.files import Used
from customize.files.remote import Remote, is_address, remote

if TYPE_CHECKING:
    from customize.editing.folders.items import Item
    from customize.editing.masks import Mask


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Describe all that the command takes."""
    add = command.add_argument
    add(
        "what",
        metavar="FOLDER|GLOB|TABLE",
        help="'shots', 'shots/*.jpg' in quotes, s3://bucket/shots, edits.csv",
    )
    add(
        "instructions",
        nargs="*",
        metavar="INSTRUCTION",
        help="what to do, in quotes; several are applied one after another (a table may have its)",
    )
    add("-o", "--output", type=_written, metavar="FOLDER", help="where to write (FOLDER_edited)")
    add("--overwrite", action="store_true", help="replace files that other programs put there")
    add_base(add)
    _add_how(command)
    _add_what_else(add)
    add("--ray", nargs="?", const="", metavar="ADDRESS", help="edit on a Ray cluster (a local one)")
    add("--workers", type=int, metavar="N", help="of --ray: one for each GPU, else each CPU")
    add_sampling(add)


def _written(text: str) -> Path | str:
    """Keep an address as it is written: a path would lose one of its strokes."""
    return text.rstrip("/") if is_address(text) else Path(text)


def _add_how(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--seeds",
        choices=["shared", "each"],
        default="shared",
        help="all pictures from one field of noise, or each from its own (shared)",
    )
    add("--tiles", action="store_true", help="work at the picture's own size, for styles")
    speed = command.add_mutually_exclusive_group()
    speed.add_argument(
        "--exact",
        dest="fast",
        action="store_false",
        default=False,
        help="as diffusers' pipeline would (default)",
    )
    speed.add_argument(
        "--fast", action="store_true", help="leave out work; what it costs in dB is measured"
    )
    add("--at-once", type=int, metavar="N", help="pictures sampled together (what memory allows)")


def _add_what_else(add: Any) -> None:
    add("--instructions", dest="grid", type=Path, metavar="FILE", help="each of its lines, a grid")
    add("--strengths", metavar="S,S,..", help="each picture at several strengths of the adapters")
    add("--mask", metavar="PICTURE|auto", help="white is edited; auto: where the instruction acts")
    add("--region", metavar="X,Y,W,H", help="edit inside this rectangle of every picture, pixels")
    add("--format", choices=["png", "jpeg", "webp"], help="of the answers (each picture's own)")
    add("--quality", type=int, default=95, metavar="Q", help="of JPEG and WebP, 1 to 100 (95)")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what would have no effect or cannot be, before anything is opened."""
    if arguments.mask is not None and arguments.region is not None:
        raise EditError("--mask and --region both say where to edit; expected one; leave one out")
    if arguments.grid is not None and arguments.instructions:
        raise EditError(
            "--instructions gives each picture several edits, and an instruction is given too; "
            "expected one of them; put the instruction into the file"
        )
    if not 1 <= arguments.quality <= 100:
        raise EditError(f"--quality {arguments.quality}: expected 1 to 100; 95 is the usual")
    if arguments.at_once is not None and not 1 <= arguments.at_once <= 1024:
        raise EditError(f"--at-once {arguments.at_once}: expected 1 to 1024; leave it out")
    if arguments.workers is not None and (arguments.ray is None or arguments.workers < 1):
        raise EditError("--workers counts those of --ray, at least 1; add --ray, or leave it out")
    pictures = [text for text in arguments.instructions if Path(text).is_file()]
    if pictures:
        raise EditError(
            f"{pictures[0]}: a file where an instruction is expected; the shell has spelled a "
            "pattern out; put it in quotes: 'shots/*.jpg'"
        )


def output_of(arguments: argparse.Namespace) -> Path | Remote:
    """Return where answers go: where none is named a folder called after what is edited."""
    if isinstance(arguments.output, str):
        return remote(arguments.output)
    if arguments.output is not None:
        return arguments.output
    path = Path(arguments.what)
    name = path.name if path.is_dir() else path.stem
    return Path(f"{name.replace('*', '') or 'pictures'}_edited")


def items_of(
    arguments: argparse.Namespace, folder: Path | Remote
) -> tuple[list[Item], list[Fault]]:
    """Find all that is to be edited, spread over instructions and strengths."""
    from customize.editing.folders.find import beside_inputs, find_items
    from customize.editing.folders.grid import read_instructions, read_strengths, spread

    grid = read_instructions(arguments.grid) if arguments.grid else []
    strengths = read_strengths(arguments.strengths) if arguments.strengths else []
    texts = [" ".join(text.split()) for text in arguments.instructions] or grid[:1]
    found = find_items(arguments.what, texts, _mask(arguments), arguments.format, folder)
    items = [one for one in found if not isinstance(one, Fault)]
    if any(not item.instructions for item in items):
        raise EditError(
            'no instruction: expected one such as "make it night", or a table with a column '
            "`instruction`; write it after the folder"
        )
    spread_out = list(beside_inputs(spread(items, grid, strengths), folder))
    faults = [one for one in (*found, *spread_out) if isinstance(one, Fault)]
    return [one for one in spread_out if not isinstance(one, Fault)], faults


def places_used(arguments: argparse.Namespace, folder: Path) -> list[Used]:
    """List what is read; a folder of pictures may hold that of the answers, which is not read."""
    from customize.editing.options import with_strength

    what, mask = Path(arguments.what), arguments.mask
    above = Path(os.path.realpath(folder)).parents
    found = used_adapters(with_strength(text)[0] for text in arguments.adapters)
    found += used_bases([arguments.base])
    found += [Used("the instructions", arguments.grid, shared=True)] if arguments.grid else []
    found += [Used("the mask", Path(mask), shared=True)] if mask not in (None, "auto") else []
    if what.is_file():
        found.append(Used("what is to be edited", what, shared=True))
    elif what.is_dir() and Path(os.path.realpath(what)) not in above:
        found.append(Used("the pictures to edit", what))
    return found


def _mask(arguments: argparse.Namespace) -> Mask | None:
    from customize.editing.masks import AUTO, Mask, region_of
    from customize.pairs.decode import upright_size

    if arguments.region is not None:
        return region_of(arguments.region)
    if arguments.mask is None:
        return None
    if arguments.mask == AUTO:
        return Mask(auto=True)
    file = Path(arguments.mask)
    upright_size(file)  # raises PairsError, once, for what is no picture
    return Mask(file=file)
