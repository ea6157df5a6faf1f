"""`customize edit-folder`: the same edit on many pictures, to be stopped and gone on with."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.edit import add_base, add_sampling, opened_editor, sampling_options
from customize.cli.inputs import used_adapters, used_bases
from customize.drawing.table import table
from customize.errors import EditError, Fault
from customize.files import Used, check_place

if TYPE_CHECKING:
    from customize.editing.folders.items import Item
    from customize.editing.folders.plan import Edit, How
    from customize.editing.folders.run import Outcome
    from customize.editing.masks import Mask

MOST_SHOWN = 40
"""Faults shown on the terminal; the page lists all."""


def add_to(commands: Any) -> None:
    """Describe `edit-folder` to the command line's parser."""
    command = commands.add_parser(
        "edit-folder",
        help="edit many pictures alike: a folder, a pattern or a table",
        description="Edit many pictures; stopped, the same command goes on where it was.",
    )
    add = command.add_argument
    add("what", metavar="FOLDER|GLOB|TABLE", help="'shots', 'shots/*.jpg' in quotes, edits.csv")
    add(
        "instructions",
        nargs="*",
        metavar="INSTRUCTION",
        help="what to do, in quotes; several are applied one after another (a table may have its)",
    )
    add("-o", "--output", type=Path, metavar="FOLDER", help="where to write (FOLDER_edited)")
    add("--overwrite", action="store_true", help="replace files that other programs put there")
    add_base(add)
    _add_how(command)
    _add_what_else(add)
    add("--ray", nargs="?", const="", metavar="ADDRESS", help="edit on a Ray cluster (a local one)")
    add("--workers", type=int, metavar="N", help="of --ray: one for each GPU, else each CPU")
    add_sampling(add)
    command.set_defaults(run=edit_folder)


def _add_how(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--seeds",
        choices=["shared", "each"],
        default="shared",
        help="all pictures from one field of noise, or each from its own (shared)",
    )
    add(
        "--detail",
        choices=["scaled", "keep"],
        default="scaled",
        help="scale the answer up, or keep the source's detail where the edit left it alone",
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


def edit_folder(arguments: argparse.Namespace) -> int:
    """Edit all pictures; return 0, or 1 where some could not be edited."""
    from customize.editing.folders.manifest import MANIFEST, opened_manifest
    from customize.editing.folders.page import PAGE, write_page
    from customize.editing.folders.plan import pictures_at_once, together
    from customize.editing.folders.run import kept, unfinished
    from customize.editing.folders.thumbnails import opened_thumbnails
    from customize.files.manifest import Manifest

    _check(arguments)
    folder = arguments.output or _usual_output(arguments.what)
    items, faults = _items(arguments, folder)
    check_place(folder, _used(arguments, folder), folder=True)
    listed, own = Manifest(folder, "edit-folder"), [PAGE, *_sheets(arguments, items)]
    listed.check(own)
    editor = opened_editor(arguments, progress=False)
    if arguments.strengths and not arguments.adapters:
        raise EditError("--strengths are the adapters', and there are none; add --adapter FILE")
    edits, unread = _planned(editor, items, arguments)
    faults += unread
    usual = pictures_at_once(editor)
    with (
        opened_manifest(folder / MANIFEST, arguments.at_once, usual) as manifest,
        opened_thumbnails(folder) as store,
    ):
        listed.begin(own)
        wanted, outcomes = unfinished(edits, manifest, folder, overwrite=arguments.overwrite)
        print(_beginning(arguments.what, edits, wanted, faults))
        groups = together(edits, manifest.at_once)
        cost = _cost(editor, groups, wanted) if arguments.fast else ""
        start = time.perf_counter()
        made = kept(_made(arguments, editor, groups, wanted), manifest, store, folder)
        outcomes += _shown(made, len(wanted))
        seconds = time.perf_counter() - start
        about = [*_about(arguments, edits, len(wanted), seconds), *([cost] if cost else [])]
        faults += [one.done for one in outcomes if isinstance(one.done, Fault)]
        title = f"{arguments.what}: before and after"
        page = write_page(folder, title, about, outcomes, faults, store)
        if arguments.grid or arguments.strengths:
            _write_sheets(folder, outcomes, store)
        listed.finish()
    print("\n".join([*about[2:], f"{page}: before and after"]))
    return _told(faults, outcomes)


def _check(arguments: argparse.Namespace) -> None:
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


def _usual_output(what: str) -> Path:
    path = Path(what)
    name = path.name if path.is_dir() else path.stem
    return Path(f"{name.replace('*', '') or 'pictures'}_edited")


def _items(arguments: argparse.Namespace, folder: Path) -> tuple[list[Item], list[Fault]]:
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


def _used(arguments: argparse.Namespace, folder: Path) -> list[Used]:
    """List what is read; a folder of pictures may hold that of the answers, which is not read."""
    from customize.editing.options import with_strength

    what, mask = Path(arguments.what), arguments.mask
    found = used_adapters(with_strength(text)[0] for text in arguments.adapters)
    found += used_bases([arguments.base])
    found += [Used("the instructions", arguments.grid, shared=True)] if arguments.grid else []
    found += [Used("the mask", Path(mask), shared=True)] if mask not in (None, "auto") else []
    if what.is_file():
        found.append(Used("what is to be edited", what, shared=True))
    elif what.is_dir() and Path(os.path.realpath(what)) not in _above(folder):
        found.append(Used("the pictures to edit", what))
    return found


def _above(folder: Path) -> Sequence[Path]:
    return Path(os.path.realpath(folder)).parents


def _mask(arguments: argparse.Namespace) -> Mask | None:
    from customize.editing.masks import AUTO, Mask, region_of

    if arguments.region is not None:
        return region_of(arguments.region)
    if arguments.mask is None:
        return None
    return Mask(auto=True) if arguments.mask == AUTO else Mask(file=Path(arguments.mask))


def _planned(
    editor: Any, items: Sequence[Item], arguments: argparse.Namespace
) -> tuple[list[Edit], list[Fault]]:
    from customize.editing.folders.plan import Edit, How, plan_edits

    options = sampling_options(arguments)
    texts = dict.fromkeys(text for item in items for text in item.instructions)
    if texts:
        editor.prepare(list(texts), options)
    how: How = How(arguments.seeds, arguments.detail, arguments.tiles, arguments.fast)
    planned = list(plan_edits(editor, items, options, how))
    edits = [one for one in planned if isinstance(one, Edit)]
    return edits, [one for one in planned if isinstance(one, Fault)]


def _beginning(what: str, edits: Sequence[Edit], wanted: set[Edit], faults: Sequence[Fault]) -> str:
    sizes = Counter(edit.working for edit in edits)
    done = len(edits) - len(wanted)
    parts = [f"{what}: {len(edits)} edits at {len(sizes)} working size{'s'[: len(sizes) > 1]}"]
    parts += [f"{done} there already"] if done else []
    parts += [f"{len(faults)} that cannot be read"] if faults else []
    return ", ".join(parts)


def _shown(made: Iterator[Outcome], count: int) -> Iterator[Outcome]:
    """Pass outcomes on while a bar tells how many, how fast, and how long still."""
    from tqdm import tqdm

    failed = 0
    with tqdm(total=count, desc="editing", unit="picture", disable=None, smoothing=0.05) as bar:
        for outcome in made:
            failed += isinstance(outcome.done, Fault)
            bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            bar.update()
            yield outcome


def _made(arguments: argparse.Namespace, editor: Any, groups: Any, wanted: set[Edit]) -> Any:
    """Make groups here, or by the workers of a cluster."""
    if arguments.ray is None:
        from customize.editing.folders.run import encoded_in_turn

        return encoded_in_turn(editor, groups, wanted, arguments.quality)
    from customize.distributed.cluster import connect
    from customize.distributed.folders import Opening, made_by_workers
    from customize.editing.options import with_strength

    texts = {text for edit in wanted for text in edit.item.instructions}
    adapters = (with_strength(text) for text in arguments.adapters)
    opening = Opening(
        editor.base.name,
        arguments.revision,
        arguments.precision,
        arguments.device,
        tuple((str(path), strength) for path, strength in adapters),
        tuple(sorted(texts)),
        sampling_options(arguments),
    )
    connect(arguments.ray or None)
    return made_by_workers(groups, wanted, opening, arguments.quality, arguments.workers)


def _cost(editor: Any, groups: Any, wanted: set[Edit]) -> str:
    """Measure `--fast` against `--exact` on the first pictures that are to be made."""
    from customize.editing.folders.fast_cost import cost_of_fast

    due = next((group for group in groups if not wanted.isdisjoint(group)), None)
    cost = None if due is None else cost_of_fast(editor, due)
    return "" if cost is None else str(cost)


def _about(
    arguments: argparse.Namespace, edits: Sequence[Edit], made: int, seconds: float
) -> list[str]:
    """Return lines on what was done and how fast."""
    told = edits[0].settings.as_parameters().splitlines()[-1] if edits else ""
    rate = f"{made} made in {seconds:.1f} s, {made / seconds:.2f} a second" if made else "none made"
    return [" → ".join(arguments.instructions), told, rate]


def _sheets(arguments: argparse.Namespace, items: Sequence[Item]) -> list[str]:
    """Name the sheets that a grid of these items has."""
    from customize.editing.folders.grid import sheet_names

    pictures = len({item.image for item in items})
    return sheet_names(pictures) if arguments.grid or arguments.strengths else []


def _write_sheets(folder: Path, outcomes: Sequence[Outcome], store: Any) -> None:
    from customize.editing.folders.grid import write_sheets

    for path in write_sheets(folder, outcomes, store):
        print(path)


def _told(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> int:
    """Print what went wrong and what was changed on reading; return the exit code."""
    notes = Counter(
        note for one in outcomes if not isinstance(one.done, Fault) for note in one.done.notes
    )
    for note, count in notes.most_common():
        print(f"{count} picture{'s'[: count > 1]}: {note}")
    if not faults:
        return 0
    rows = [[fault.place, fault.found, fault.cure] for fault in faults[:MOST_SHOWN]]
    print(f"\nnot edited: {len(faults)}\n{table(rows, ['where', 'found', 'what to do'])}")
    if len(faults) > MOST_SHOWN:
        print(f"and {len(faults) - MOST_SHOWN} more; the page lists all")
    return 1
