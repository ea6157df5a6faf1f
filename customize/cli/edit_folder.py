"""`customize edit-folder`: the same edit on many pictures, to be stopped and gone on with."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.edit import opened_editor, sampling_options
from customize.cli.edit_folder_arguments import (
    add_arguments,
    check,
    items_of,
    output_of,
    places_used,
)
from customize.cli.edit_folder_messages import beginning, print_faults, summary, with_bar
from customize.errors import EditError, Fault, FaultsError
from customize.files import check_place

if TYPE_CHECKING:
    from customize.editing.folders.items import Item
    from customize.editing.folders.plan import Edit, How


def add_to(commands: Any) -> None:
    """Describe `edit-folder` to the command line's parser."""
    command = commands.add_parser(
        "edit-folder",
        help="edit many pictures alike: a folder, a pattern or a table",
        description="Edit many pictures; stopped, the same command goes on where it was.",
    )
    add_arguments(command)
    command.set_defaults(run=edit_folder)


def edit_folder(arguments: argparse.Namespace) -> int:
    """Edit all pictures; return 0, or 1 where some could not be edited.

    Raises FaultsError, and writes nothing, where none can be.
    """
    from customize.editing.folders.elsewhere import books_of, sent
    from customize.editing.folders.grid import write_sheets
    from customize.editing.folders.manifest import MANIFEST, opened_manifest
    from customize.editing.folders.page import PAGE, write_page
    from customize.editing.folders.plan import pictures_at_once, together
    from customize.editing.folders.run import kept, unfinished
    from customize.editing.folders.thumbnails import opened_thumbnails
    from customize.files.manifest import Manifest

    check(arguments)
    folder = output_of(arguments)
    items, faults = items_of(arguments, folder)
    own = [PAGE, *_sheets(arguments, items)]
    if isinstance(folder, Path):
        check_place(folder, places_used(arguments, folder), folder=True)
        Manifest(folder, "edit-folder").check(own)
    editor = opened_editor(arguments, progress=False)
    if arguments.strengths and not arguments.adapters:
        raise EditError("--strengths are the adapters', and there are none; add --adapter FILE")
    edits, unread = _planned(editor, items, arguments)
    faults += unread
    if not edits:
        raise FaultsError(f"nothing at {arguments.what} that can be edited", faults)
    usual = pictures_at_once(editor)
    with (
        books_of(folder, own) as books,
        opened_manifest(books / MANIFEST, arguments.at_once, usual) as manifest,
        opened_thumbnails(books) as store,
    ):
        listed = Manifest(books, "edit-folder")
        listed.begin(own)
        wanted, outcomes = unfinished(edits, manifest, folder, overwrite=arguments.overwrite)
        print(beginning(arguments.what, edits, wanted, faults))
        groups = together(edits, manifest.at_once)
        cost = _cost(editor, groups, wanted) if arguments.fast else ""
        start = time.perf_counter()
        made, keep = _made(arguments, editor, groups, wanted), (manifest, store)
        done = kept(made, *keep, folder) if isinstance(folder, Path) else sent(made, *keep, folder)
        outcomes += with_bar(done, len(wanted))
        seconds = time.perf_counter() - start
        about = [*summary(arguments, edits, len(wanted), seconds), *([cost] if cost else [])]
        faults += [one.done for one in outcomes if isinstance(one.done, Fault)]
        title = f"{arguments.what}: before and after"
        write_page(books, title, about, outcomes, faults, store, own[1:])
        if arguments.grid or arguments.strengths:
            for sheet in write_sheets(books, outcomes, store):
                print(folder / sheet.name)
        listed.finish()
    print("\n".join([*about[2:], f"{folder / PAGE}: before and after"]))
    return print_faults(faults, outcomes)


def _planned(
    editor: Any, items: Sequence[Item], arguments: argparse.Namespace
) -> tuple[list[Edit], list[Fault]]:
    from customize.editing.folders.plan import Edit, How, plan_edits

    options = sampling_options(arguments)
    texts = dict.fromkeys(text for item in items for text in item.instructions)
    if texts:
        editor.prepare(list(texts), options)
    how: How = How(arguments.seeds, arguments.tiles, arguments.fast)
    planned = list(plan_edits(editor, items, options, how))
    edits = [one for one in planned if isinstance(one, Edit)]
    return edits, [one for one in planned if isinstance(one, Fault)]


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


def _sheets(arguments: argparse.Namespace, items: Sequence[Item]) -> list[str]:
    """Name the sheets that a grid of these items has."""
    from customize.editing.folders.grid import sheet_names

    pictures = len({item.image for item in items})
    return sheet_names(pictures) if arguments.grid or arguments.strengths else []
